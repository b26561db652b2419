#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/iq4_values.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// A half float; the upper two bits, then the lower four, of the scales of eight groups of 32; 16
// bytes of nibbles a group, each the place of a value. Scales are plus 32.
struct IQ4_XS : CodeFormat<32, false> {
  static constexpr int kBlock = 256, kBlockBytes = 136, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    uint32_t nibbles[4];
    load_words(block + 8 + 16 * group, nibbles);
    Piece piece;
    look_up_nibbles<Iq4Nibbles>(nibbles, piece.codes);
    const int lower = block[4 + group / 2] >> (4 * (group % 2)) & 15;
    const int upper = load_pair(block + 2) >> (2 * group) & 3;
    piece.scales[0] = half_to_float(load_pair(block)) * static_cast<float>(lower + 16 * upper - 32);
    return piece;
  }
};

}  // namespace

Format format_iq4_xs() { return make_format<IQ4_XS>(); }

}  // namespace hearth::HEARTH_GPU
