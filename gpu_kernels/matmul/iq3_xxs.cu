#include "gpu_kernels/matmul/codebook.h"
#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

__device__ constexpr auto kRows = copy_codebook(kIq3XxsRows);

// A half float; the places of rows of 4; then for each group of 32 a word: their signs and, on top,
// the scale.
struct IQ3_XXS : CodeFormat<32, false> {
  static constexpr int kBlock = 256, kBlockBytes = 98, kChunk = 2048;
  static constexpr int kTableBytes = sizeof(kRows);

  static __device__ __forceinline__ void load_table() { share_codebook(kRows); }

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    uint32_t places[2];
    load_words(block + 2 + 8 * group, places);
    const uint32_t packed = load_word(block + 66 + 4 * group);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) {
      const uint32_t signs = eight_signs(packed >> (7 * (i / 2)) & 127) >> (4 * (i % 2));
      const uint32_t row = shared_row<uint32_t>(places[i / 4] >> (8 * (i % 4)) & 255);
      piece.codes[i] = negate_where(row, signs);
    }
    piece.scales[0] =
        half_to_float(load_pair(block)) * (0.5f + static_cast<float>(packed >> 28)) * 0.5f;
    return piece;
  }
};

}  // namespace

Format format_iq3_xxs() { return make_format<IQ3_XXS>(); }

}  // namespace hearth::HEARTH_GPU
