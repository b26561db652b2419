#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// Two half floats, the scale and the least weight, then 16 bytes of nibbles.
struct Q4_1 : CodeFormat<32, true> {
  static constexpr int kBlock = 32, kBlockBytes = 20, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 4, nibbles);
    Piece piece;
    split_nibbles(nibbles, piece.codes);
    piece.scales[0] = half_to_float(load_pair(block));
    piece.minimums[0] = -half_to_float(load_pair(block + 2));
    return piece;
  }
};

}  // namespace

Format format_q4_1() { return make_format<Q4_1>(); }

}  // namespace hearth::HEARTH_GPU
