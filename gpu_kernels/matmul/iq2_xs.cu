#include "gpu_kernels/matmul/codebook.h"
#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

__device__ constexpr auto kRows = copy_codebook(kIq2XsRows);

// A half float; for each row of 8 its place (9 bits) and signs (7); for each group of 16 four bits
// of scale.
struct IQ2_XS : CodeFormat<16, false> {
  static constexpr int kBlock = 256, kBlockBytes = 74, kChunk = 2048;
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
      const uint32_t own = words[i / 2] >> (16 * (i % 2)) & 0xffff;
      put_row(shared_row<uint2>(own & 511), eight_signs(own >> 9), piece.codes + 2 * i);
    }
    const float scale = half_to_float(load_pair(block));
    piece.scales[0] = scale * (0.5f + static_cast<float>(block[66 + group] & 15)) * 0.25f;
    piece.scales[1] = scale * (0.5f + static_cast<float>(block[66 + group] >> 4)) * 0.25f;
    return piece;
  }
};

}  // namespace

Format format_iq2_xs() { return make_format<IQ2_XS>(); }

}  // namespace hearth::HEARTH_GPU
