#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/k_scales.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit g of byte i for weight i of group g.
struct Q5_K : CodeFormat<32, true> {
  static constexpr int kBlock = 256, kBlockBytes = 176, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    Piece piece;
    uint32_t fifths[8];
    load_words(block + 48 + 32 * (group / 2), piece.codes);
    load_words(block + 16, fifths);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) {
      piece.codes[i] = (piece.codes[i] >> (4 * (group % 2)) & 0x0f0f0f0f) |
                       (fifths[i] >> group & 0x01010101) << 4;
    }
    load_k_scale(block, group, piece.scales[0], piece.minimums[0]);
    return piece;
  }
};

}  // namespace

Format format_q5_k() { return make_format<Q5_K>(); }

}  // namespace hearth::HEARTH_GPU
