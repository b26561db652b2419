#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/make_format.h"

namespace hearth::HEARTH_GPU {
namespace {

// The exponent of the scale, then 128 eight-bit floats.
struct F8_E4M3 : FloatFormat {
  static constexpr int kBlock = 128, kBlockBytes = 129, kChunk = 1024;

  struct Piece {
    float weights[8];
    float scale;
  };

  // Sign, exponent and fraction moved to where a float has them: the value times 2^-120, the
  // difference of the exponents' biases, subnormals included.
  static __device__ __forceinline__ Piece unpack(const unsigned char* chunk, int number) {
    constexpr int kBlockPieces = kBlock / kPiece;
    const unsigned char* block = chunk + number / kBlockPieces * kBlockBytes;
    uint32_t codes[2];
    load_words(block + 1 + number % kBlockPieces * kPiece, codes);
    Piece piece;
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) {
      const auto top = static_cast<int32_t>(codes[i / 4] << (24 - 8 * (i % 4)));
      piece.weights[i] = bits_to_float(static_cast<uint32_t>(top >> 4) & 0x87f00000) * 0x1p120f;
    }
    piece.scale = power_of_two(block[0]);
    return piece;
  }

  static __device__ __forceinline__ float multiply(const Piece& piece, const Input& input,
                                                   float sum) {
    float own = 0;
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) own = fmaf(piece.weights[i], input.x[i], own);
    return fmaf(own, piece.scale, sum);
  }

  static __device__ __forceinline__ void round(const Piece& piece, int, uint32_t (&pairs)[4]) {
    HEARTH_UNROLL
    for (int i = 0; i < kPiece / 2; ++i) {
      pairs[i] = pack_bfloat16s(piece.weights[2 * i] * piece.scale,
                                piece.weights[2 * i + 1] * piece.scale);
    }
  }

  static __device__ __forceinline__ float weight(const Piece& piece, int i) {
    return piece.weights[i] * piece.scale;
  }

  // A row is whole blocks.
  static __device__ __forceinline__ void cut(Piece&, int64_t) {}
};

}  // namespace

Format format_f8_e4m3() { return make_format<F8_E4M3>(); }

}  // namespace hearth::HEARTH_GPU
