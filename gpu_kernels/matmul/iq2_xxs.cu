#include "gpu_kernels/matmul/codebook.h"
#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

__device__ constexpr auto kRows = copy_codebook(kIq2XxsRows);

// A half float; for each group of 32 the places of four rows of 8, then a word: their signs and, on
// top, the scale.
struct IQ2_XXS : CodeFormat<32, false> {
  static constexpr int kBlock = 256, kBlockBytes = 66, kChunk = 2048;
  static constexpr int kTableBytes = sizeof(kRows);

  static __device__ __forceinline__ void load_table() { share_codebook(kRows); }

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    uint32_t words[2];
    load_words(block + 2 + 8 * group, words);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint2 row = shared_row<uint2>(words[0] >> (8 * i) & 255);
      put_row(row, eight_signs(words[1] >> (7 * i) & 127), piece.codes + 2 * i);
    }
    piece.scales[0] =
        half_to_float(load_pair(block)) * (0.5f + static_cast<float>(words[1] >> 28)) * 0.25f;
    return piece;
  }
};

}  // namespace

Format format_iq2_xxs() { return make_format<IQ2_XXS>(); }

}  // namespace hearth::HEARTH_GPU
