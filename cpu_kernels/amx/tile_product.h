// What both ways of multiplying in tiles share.
#pragma once

#include "cpu_kernels/amx/tile_unit.h"
#include "cpu_kernels/amx/weight_tiles.h"
#include "cpu_kernels/bodies/matmul.h"
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kTileFloats = 16 * 16;  // sums

// Sixteen rows of sixteen words to columns; row(i) is where row i lies.
template <typename F>
HEARTH_INLINE void transpose_tile(F row, void* out) {
  auto* words = static_cast<Byte(*)[kTileRows][4]>(out);
  for (int piece = 0; piece < 4; ++piece) {
    auto every_fourth = [&](int q) {
      return load_pieces(
          [&](int i) { return reinterpret_cast<const Byte*>(row(4 * i + q)) + 16 * piece; });
    };
    transpose_words(every_fourth(0), every_fourth(1), every_fourth(2), every_fourth(3),
                    words + 4 * piece);
  }
}

// Adds sixteen sums to y, or sets it; `count` of them count.
HEARTH_INLINE void write_sums(const float* sums, int count, bool adds, float* y) {
  const __mmask16 mask = static_cast<__mmask16>(0xffff >> (16 - count));
  __m512 sum = _mm512_load_ps(sums);
  if (adds) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
  _mm512_mask_storeu_ps(y, mask, sum);
}

inline int least(int64_t a, int b) { return static_cast<int>(a < b ? a : b); }

// Where the columns of token i begin.
inline const uint16_t* token_at(const MatmulParams& p, int64_t i, int64_t column) {
  return p.xq.bfloat16s + x_row(p, i) * p.xq.bfloat16_stride + column;
}

}  // namespace
}  // namespace hearth::HEARTH_ISA
