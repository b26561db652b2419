#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

struct BF16 : FloatFormat {
  static constexpr int kBlock = 1, kBlockBytes = 2, kChunk = 512;
  static constexpr bool kIsBfloat16 = true;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    uint32_t pairs[kPiece / 2];
    load_words(chunk + number * kPiece * kBlockBytes, pairs);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < kPiece / 2; ++i) {
      piece.weights[2 * i] = bfloat16_to_float(pairs[i] & 0xffff);
      piece.weights[2 * i + 1] = bfloat16_to_float(pairs[i] >> 16);
    }
    return piece;
  }
};

}  // namespace

Format format_bf16() { return make_format<BF16>(); }

}  // namespace hearth::HEARTH_GPU
