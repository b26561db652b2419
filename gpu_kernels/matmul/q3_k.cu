#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// 32 bytes of third bits, bit g of byte i for weight i of 32 number g; two lower bits as in Q2_K;
// six bits for the scale of each group of 16; a half float. Codes are plus 4, scales plus 32.
struct Q3_K : CodeFormat<16, false> {
  static constexpr int kBlock = 256, kBlockBytes = 110, kChunk = 2048;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    Piece piece;
    uint32_t thirds[8];
    load_words(block + 32 + 32 * (group / 4), piece.codes);
    load_words(block, thirds);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) {
      const uint32_t lower = piece.codes[i] >> (2 * (group % 4)) & 0x03030303;
      piece.codes[i] = subtract_each(lower | (thirds[i] >> group & 0x01010101) << 2, 0x04040404);
    }
    const float scale = half_to_float(load_pair(block + 108));
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int place = 2 * group + i;
      const int lower = block[96 + place % 8] >> (4 * (place / 8)) & 15;
      const int upper = block[104 + place % 4] >> (2 * (place / 4)) & 3;
      piece.scales[i] = scale * static_cast<float>(lower + 16 * upper - 32);
    }
    return piece;
  }
};

}  // namespace

Format format_q3_k() { return make_format<Q3_K>(); }

}  // namespace hearth::HEARTH_GPU
