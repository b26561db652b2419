#include "gpu_kernels/matmul/codebook.h"
#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

__device__ constexpr auto kRows = copy_codebook(kIq3SRows);

// A half float; for each row of 4 the lower byte of its place, then the ninth bit; a sign a weight;
// for each group of 32 four bits of scale.
struct IQ3_S : CodeFormat<32, false> {
  static constexpr int kBlock = 256, kBlockBytes = 110, kChunk = 2048;
  static constexpr int kTableBytes = sizeof(kRows);

  static __device__ __forceinline__ void load_table() { share_codebook(kRows); }

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    uint32_t lower[2];
    load_words(block + 2 + 8 * group, lower);
    const uint32_t upper = block[66 + group], signs = load_word(block + 74 + 4 * group);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) {
      const uint32_t place = (lower[i / 4] >> (8 * (i % 4)) & 255) | (upper >> i & 1) << 8;
      piece.codes[i] = negate_where(shared_row<uint32_t>(place), signs >> (4 * i));
    }
    const uint32_t own = block[106 + group / 2] >> (4 * (group % 2)) & 15;
    piece.scales[0] = half_to_float(load_pair(block)) * static_cast<float>(1 + 2 * own);
    return piece;
  }
};

}  // namespace

Format format_iq3_s() { return make_format<IQ3_S>(); }

}  // namespace hearth::HEARTH_GPU
