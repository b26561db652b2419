#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// Doubled so that they are whole: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
struct Values {
  static constexpr uint32_t kWord0 = 0x03020100, kWord1 = 0x0c080604, kWord2 = 0xfdfeff00,
                            kWord3 = 0xf4f8fafc;
};

// The exponent of the scale, then 16 bytes: their low nibbles are the first 16 weights.
struct Mxfp4 : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 17, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 1, nibbles);
    Piece piece;
    look_up_nibbles<Values>(nibbles, piece.codes);
    piece.scales[0] = 0.5f * power_of_two(block[0]);
    return piece;
  }
};

}  // namespace

Format format_mxfp4() { return make_format<Mxfp4>(); }

}  // namespace hearth::HEARTH_GPU
