#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// A half float, then 32 signed bytes.
struct Q8_0 : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 34, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    Piece piece;
    load_words(block + 2, piece.codes);
    piece.scales[0] = half_to_float(load_pair(block));
    return piece;
  }
};

}  // namespace

Format format_q8_0() { return make_format<Q8_0>(); }

}  // namespace hearth::HEARTH_GPU
