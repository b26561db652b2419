#include "gpu_kernels/matmul/embed.h"
#include "gpu_kernels/matmul/experts.h"
#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/formats.h"

namespace hearth::HEARTH_GPU {
namespace {

// The sixteen values, doubled so that they are whole: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
constexpr uint32_t kSmall = 0x03020100, kLarge = 0x0c080604;
constexpr uint32_t kSmallNegative = 0xfdfeff00, kLargeNegative = 0xf4f8fafc;

// The values of the four nibbles in the low half of `codes`.
__device__ __forceinline__ uint32_t look_up(uint32_t codes) {
  const uint32_t magnitudes = codes & 0x7777;
  const uint32_t sign_picks = 0x3210 | (codes & 0x8888) >> 1;
  return pick_bytes(pick_bytes(kSmall, kLarge, magnitudes),
                    pick_bytes(kSmallNegative, kLargeNegative, magnitudes), sign_picks);
}

// The exponent of the scale, then 16 bytes: their low nibbles are the first 16 weights.
struct Mxfp4 : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 17, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 1, nibbles);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t first = look_up(nibbles[i]), last = look_up(nibbles[i] >> 16);
      piece.codes[i] = pick_bytes(first, last, 0x6420);
      piece.codes[i + 4] = pick_bytes(first, last, 0x7531);
    }
    piece.scales[0] = 0.5f * power_of_two(block[0]);
    return piece;
  }
};

}  // namespace

void multiply_mxfp4(const GpuMatmulParams& params, GpuStream stream) {
  multiply_few<Mxfp4>(params, stream);
}

void embed_mxfp4(const GpuEmbedParams& params, GpuStream stream) {
  embed_rows<Mxfp4>(params, stream);
}

void hidden_mxfp4(const GpuExpertHiddenParams& params, GpuStream stream) {
  hidden_of_experts<Mxfp4>(params, stream);
}

void output_mxfp4(const GpuExpertOutputParams& params, GpuStream stream) {
  output_of_experts<Mxfp4>(params, stream);
}

}  // namespace hearth::HEARTH_GPU
