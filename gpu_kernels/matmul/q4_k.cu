#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/k_scales.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// Two half floats, the scales of eight groups of 32, then 32 bytes for each two groups: the low
// nibbles are the first.
struct Q4_K : CodeFormat<32, true> {
  static constexpr int kBlock = 256, kBlockBytes = 144, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    Piece piece;
    load_words(block + 16 + 32 * (group / 2), piece.codes);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) piece.codes[i] = piece.codes[i] >> (4 * (group % 2)) & 0x0f0f0f0f;
    load_k_scale(block, group, piece.scales[0], piece.minimums[0]);
    return piece;
  }
};

}  // namespace

Format format_q4_k() { return make_format<Q4_K>(); }

}  // namespace hearth::HEARTH_GPU
