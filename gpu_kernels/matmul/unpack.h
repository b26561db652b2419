// How a weight format takes part in products and in embeddings. A format is a struct with
//   kBlock, kBlockBytes   weights and bytes of a stored block
//   kChunk                weights that a warp fetches at once: a multiple of 32 pieces and of
//                         kBlock, about 1 KiB
//   unpack(chunk, piece)  piece number `piece` of the chunk, from bytes of any alignment in shared
//                         memory, which may be read up to 4 bytes past the chunk
//   kTableBytes, load_table()   where unpacking looks things up: the size of its table, a multiple
//                         of 16, and how the threads of a block together put it at the beginning
//                         of the shared memory; they meet before they unpack
//   kIsBfloat16           weights are stored as tensor cores take them
//   kIsRounded            many tokens are multiplied by weights rounded to bfloat16
// and the rest from one of the two bases here: what a piece is, what of the activations meets it,
// the product, and the weights as floats or bfloat16s; and that there is no table. Sums go in one
// order, whatever the number of tokens.
#pragma once

#include "gpu_kernels/common/numbers.h"

namespace hearth::HEARTH_GPU {

// Pieces of 32 weights, weight = scale * code - minimum, with a scale and a minimum for each kGroup
// (16 or 32).
template <int kGroup, bool kHasMinimums>
struct CodeFormat {
  static constexpr int kPiece = 32, kTableBytes = 0;
  static constexpr bool kIsBfloat16 = false, kIsRounded = true;
  static constexpr int kGroups = kPiece / kGroup;

  struct Piece {
    uint32_t codes[8];  // four signed bytes each, in order
    float scales[kGroups];
    float minimums[kHasMinimums ? kGroups : 1];
  };

  struct Input {
    uint32_t codes[8];
    float scale;
    float sums[2];
  };

  static __device__ __forceinline__ Input load(const GpuMatmulParams& p, int64_t row,
                                               int64_t column) {
    const int64_t at = row * p.w.cols + column;
    const uint4* codes = reinterpret_cast<const uint4*>(p.xq.codes + at);
    const uint4 first = codes[0], last = codes[1];
    Input input = {{first.x, first.y, first.z, first.w, last.x, last.y, last.z, last.w},
                   p.xq.scales[at / 32],
                   {0, 0}};
    if constexpr (kHasMinimums) {
      input.sums[0] = p.xq.sums[at / 16];
      input.sums[1] = p.xq.sums[at / 16 + 1];
    }
    return input;
  }

  static __device__ __forceinline__ float multiply(const Piece& piece, const Input& input,
                                                   float sum) {
    HEARTH_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      int32_t codes = 0;
      HEARTH_UNROLL
      for (int i = g * (8 / kGroups); i < (g + 1) * (8 / kGroups); ++i) {
        codes =
            dot4(static_cast<int32_t>(piece.codes[i]), static_cast<int32_t>(input.codes[i]), codes);
      }
      sum = fmaf(static_cast<float>(codes), piece.scales[g] * input.scale, sum);
      if constexpr (kHasMinimums) {
        const float of_group = kGroups == 2 ? input.sums[g] : input.sums[0] + input.sums[1];
        sum = fmaf(-piece.minimums[g], of_group, sum);
      }
    }
    return sum;
  }

  // Eight weights from `first` on as bfloat16s, two a word.
  static __device__ __forceinline__ void round(const Piece& piece, int first,
                                               uint32_t (&pairs)[4]) {
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int word = first / 4 + i;
      const float scale = piece.scales[word * kGroups / 8];
      float weights[4];
      HEARTH_UNROLL
      for (int j = 0; j < 4; ++j) {
        weights[j] = signed_byte_to_float(piece.codes[word], j) * scale;
        if constexpr (kHasMinimums) weights[j] -= piece.minimums[word * kGroups / 8];
      }
      pairs[2 * i] = pack_bfloat16s(weights[0], weights[1]);
      pairs[2 * i + 1] = pack_bfloat16s(weights[2], weights[3]);
    }
  }

  static __device__ __forceinline__ void load_table() {}

  // A row is whole pieces.
  static __device__ __forceinline__ void cut(Piece&, int64_t) {}

  static __device__ __forceinline__ float weight(const Piece& piece, int i) {
    const auto code = static_cast<int8_t>(piece.codes[i / 4] >> (i % 4 * 8));
    const float value = static_cast<float>(code) * piece.scales[i / kGroup];
    return kHasMinimums ? value - piece.minimums[kHasMinimums ? i / kGroup : 0] : value;
  }
};

// Pieces of 8 weights as floats, times activations as floats.
struct FloatFormat {
  static constexpr int kPiece = 8, kTableBytes = 0;
  static constexpr bool kIsBfloat16 = false;  // as it is stored
  static constexpr bool kIsRounded = true;    // to bfloat16s, for tensor cores

  struct Piece {
    float weights[8];
  };

  struct Input {
    float x[8];
  };

  static __device__ __forceinline__ Input load(const GpuMatmulParams& p, int64_t row,
                                               int64_t column) {
    const float* x = p.x + row * p.w.cols + column;
    Input input;
    if (column + kPiece <= p.w.cols && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
      const float4 first = reinterpret_cast<const float4*>(x)[0],
                   last = reinterpret_cast<const float4*>(x)[1];
      return {{first.x, first.y, first.z, first.w, last.x, last.y, last.z, last.w}};
    }
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) input.x[i] = column + i < p.w.cols ? x[i] : 0.0f;
    return input;
  }

  static __device__ __forceinline__ float multiply(const Piece& piece, const Input& input,
                                                   float sum) {
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) sum = fmaf(piece.weights[i], input.x[i], sum);
    return sum;
  }

  static __device__ __forceinline__ void round(const Piece& piece, int, uint32_t (&pairs)[4]) {
    HEARTH_UNROLL
    for (int i = 0; i < kPiece / 2; ++i) {
      pairs[i] = pack_bfloat16s(piece.weights[2 * i], piece.weights[2 * i + 1]);
    }
  }

  static __device__ __forceinline__ void load_table() {}

  // What follows the last `count` weights of a row is none: the memory there holds anything, NaN
  // too.
  static __device__ __forceinline__ void cut(Piece& piece, int64_t count) {
    HEARTH_UNROLL
    for (int i = 0; i < kPiece; ++i) {
      if (i >= count) piece.weights[i] = 0;
    }
  }

  static __device__ __forceinline__ float weight(const Piece& piece, int i) {
    return piece.weights[i];
  }
};

}  // namespace hearth::HEARTH_GPU
