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

// Words of `a` and `b` in turn, from word `first` on.
HEARTH_INLINE Bytes interleave_words(Bytes a, Bytes b, bool upper) {
  const Bytes low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
                                     39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  return _mm512_permutex2var_epi16(a, upper ? _mm512_add_epi16(low, _mm512_set1_epi16(16)) : low,
                                   b);
}

// Sixteen values of two rows rounded to bfloat16, in pairs: a row of a right tile.
HEARTH_INLINE Bytes pair_values(__m512 even, __m512 odd) {
  const Bytes apart = reinterpret_cast<Bytes>(_mm512_cvtne2ps_pbh(odd, even));
  return interleave_words(apart, swap_halves(apart), false);
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
