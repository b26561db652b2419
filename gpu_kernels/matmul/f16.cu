#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

struct F16 : FloatFormat {
  static constexpr int kBlock = 1, kBlockBytes = 2, kChunk = 512;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    uint32_t pairs[kPiece / 2];
    load_words(chunk + number * kPiece * kBlockBytes, pairs);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < kPiece / 2; ++i) {
      piece.weights[2 * i] = half_to_float(static_cast<uint16_t>(pairs[i]));
      piece.weights[2 * i + 1] = half_to_float(static_cast<uint16_t>(pairs[i] >> 16));
    }
    return piece;
  }
};

}  // namespace

Format format_f16() { return make_format<F16>(); }

}  // namespace hearth::HEARTH_GPU
