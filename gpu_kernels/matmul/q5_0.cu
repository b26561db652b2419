#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// A half float, 32 fifth bits, then 16 bytes of nibbles; codes are the weights plus 16.
struct Q5_0 : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 22, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 6, nibbles);
    Piece piece;
    split_five_bits(nibbles, load_word(block + 2), piece.codes);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) piece.codes[i] = subtract_each(piece.codes[i], 0x10101010);
    piece.scales[0] = half_to_float(load_pair(block));
    return piece;
  }
};

}  // namespace

Format format_q5_0() { return make_format<Q5_0>(); }

}  // namespace hearth::HEARTH_GPU
