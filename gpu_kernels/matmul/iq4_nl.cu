#include "gpu_kernels/matmul/codes.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/iq4_values.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// A half float, then 16 bytes of nibbles, each the place of a value.
struct IQ4_NL : CodeFormat<32, false> {
  static constexpr int kBlock = 32, kBlockBytes = 18, kChunk = 1024;

  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    const unsigned char* block = chunk + number * kBlockBytes;
    uint32_t nibbles[4];
    load_words(block + 2, nibbles);
    Piece piece;
    look_up_nibbles<Iq4Nibbles>(nibbles, piece.codes);
    piece.scales[0] = half_to_float(load_pair(block));
    return piece;
  }
};

}  // namespace

Format format_iq4_nl() { return make_format<IQ4_NL>(); }

}  // namespace hearth::HEARTH_GPU
