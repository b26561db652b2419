#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// A byte for each group of 16, its scale and minimum; 32 bytes for each 128 weights, the first 32
// in the lowest two bits; two half floats.
struct Q2_K : CodeFormat<16, true> {
  static constexpr int kBlock = 256, kBlockBytes = 84, kChunk = 2048;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number / 8 * kBlockBytes;
    const int group = number % 8;
    Piece piece;
    load_words(block + 16 + 32 * (group / 4), piece.codes);
    HEARTH_UNROLL
    for (int i = 0; i < 8; ++i) piece.codes[i] = piece.codes[i] >> (2 * (group % 4)) & 0x03030303;
    const float scale = half_to_float(load_pair(block + 80));
    const float minimum = half_to_float(load_pair(block + 82));
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint32_t own = block[2 * group + i];
      piece.scales[i] = scale * static_cast<float>(own & 15);
      piece.minimums[i] = minimum * static_cast<float>(own >> 4);
    }
    return piece;
  }
};

}  // namespace

Format format_q2_k() { return make_format<Q2_K>(); }

}  // namespace hearth::HEARTH_GPU
