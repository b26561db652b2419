#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// Two half floats, the scale and the least weight, 32 fifth bits, then 16 bytes of nibbles.
struct Q5_1 : CodeFormat<32, true> {
  static constexpr int kBlock = 32, kBlockBytes = 24, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 8, nibbles);
    Piece piece;
    split_five_bits(nibbles, load_word(block + 4), piece.codes);
    piece.scales[0] = half_to_float(load_pair(block));
    piece.minimums[0] = -half_to_float(load_pair(block + 2));
    return piece;
  }
};

}  // namespace

Format format_q5_1() { return make_format<Q5_1>(); }

}  // namespace hearth::HEARTH_GPU
