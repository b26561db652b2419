#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// A half float, then 16 bytes: their low nibbles are the first 16 weights, plus 8.
struct Q4_0 : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 18, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 2, nibbles);
    Piece piece;
    split_nibbles(nibbles, piece.codes);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) piece.codes[i] = subtract_each(piece.codes[i], 0x08080808);
    piece.scales[0] = half_to_float(load_pair(block));
    return piece;
  }
};

}  // namespace

Format format_q4_0() { return make_format<Q4_0>(); }

}  // namespace hearth::HEARTH_GPU
