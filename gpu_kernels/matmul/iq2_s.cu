#include "gpu_kernels/matmul/codebook.h"
#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

__device__ constexpr auto kRows = copy_codebook(kIq2SRows);

// A half float; for each row of 8 the lower byte of its place, then a byte of signs, then the upper
// two bits of its place; for each group of 16 four bits of scale.
struct IQ2_S : CodeFormat<16, false> {
  static constexpr int kBlock = 256, kBlockBytes = 82, kChunk = 2048;
  static constexpr int kTableBytes = sizeof(kRows);

  static __device__ __forceinline__ void load_table() { share_codebook(kRows); }

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    const uint32_t lower = load_word(block + 2 + 4 * group);
    const uint32_t signs = load_word(block + 34 + 4 * group), upper = block[66 + group];
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t place = (lower >> (8 * i) & 255) | (upper >> (2 * i) & 3) << 8;
      put_row(shared_row<uint2>(place), signs >> (8 * i), piece.codes + 2 * i);
    }
    const float scale = half_to_float(load_pair(block));
    piece.scales[0] = scale * (0.5f + static_cast<float>(block[74 + group] & 15)) * 0.25f;
    piece.scales[1] = scale * (0.5f + static_cast<float>(block[74 + group] >> 4)) * 0.25f;
    return piece;
  }
};

}  // namespace

Format format_iq2_s() { return make_format<IQ2_S>(); }

}  // namespace hearth::HEARTH_GPU
