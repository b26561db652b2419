#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// Two halves of 128 weights: 64 bytes each of low nibbles (the first 64 weights in the low ones),
// then 32 bytes each of the upper two bits. Signed scales of groups of 16, a half float. Codes are
// plus 32.
struct Q6_K : CodeFormat<16, false> {
  static constexpr int kBlock = 256, kBlockBytes = 210, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    const int half = group / 4, part = group % 4;
    Piece piece;
    uint32_t uppers[8];
    load_words(block + 64 * half + 32 * (part % 2), piece.codes);
    load_words(block + 128 + 32 * half, uppers);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) {
      const uint32_t lower = piece.codes[i] >> (4 * (part / 2)) & 0x0f0f0f0f;
      const uint32_t code = lower | (uppers[i] >> (2 * part) & 0x03030303) << 4;
      piece.codes[i] = subtract_each(code, 0x20202020);
    }
    const float scale = half_to_float(load_pair(block + 208));
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const auto own = static_cast<int8_t>(block[192 + 2 * group + i]);
      piece.scales[i] = scale * static_cast<float>(own);
    }
    return piece;
  }
};

}  // namespace

Format format_q6_k() { return make_format<Q6_K>(); }

}  // namespace hearth::HEARTH_GPU
