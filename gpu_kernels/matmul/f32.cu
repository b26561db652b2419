#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

struct F32 : FloatFormat {
  static constexpr int kBlock = 1, kBlockBytes = 4, kChunk = 256;
  static constexpr bool kIsRounded = false;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    uint32_t words[kPiece];
    load_words(chunk + number * kPiece * kBlockBytes, words);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) piece.weights[i] = bits_to_float(words[i]);
    return piece;
  }
};

}  // namespace

// Matrices of float32 are not rounded for tensor cores, so there is no multiply_many of them.
Format format_f32() {
  return {multiply_few<F32>, embed_rows<F32>, hidden_of_experts<F32>, output_of_experts<F32>};
}

}  // namespace hearth::HEARTH_GPU
