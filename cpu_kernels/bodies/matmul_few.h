// Block-format matmul for up to kFewTokens tokens: streams the weights once, straight from memory
// to registers.
#pragma once

#include "cpu_kernels/bodies/matmul_blocks.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kFewTokens = 4;

// Rows whose dots fill the four vectors that piece_sums folds into one. The folded vector holds the
// eight blocks of each row of the group, in fold order.
constexpr int kGroupRows = 4 / kVectors;

#ifdef __AVX512F__
template <bool paired>
HEARTH_INLINE RowFloats fold_order(__m256 row0, __m256 row1) {
  const __m512i order =
      paired ? _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
             : _mm512_setr_epi32(0, 16, 4, 20, 1, 17, 5, 21, 2, 18, 6, 22, 3, 19, 7, 23);
  return _mm512_permutex2var_ps(_mm512_castps256_ps512(row0), order, _mm512_castps256_ps512(row1));
}
template <bool paired>
HEARTH_INLINE RowFloats fold_order(const __m256 (&rows)[2]) {
  return fold_order<paired>(rows[0], rows[1]);
}
template <bool paired>
HEARTH_INLINE RowFloats repeat_rows(__m256 row) {
  return fold_order<paired>(row, row);
}
// Back to the blocks' order, a row each.
template <bool paired>
HEARTH_INLINE void unfold(RowFloats v, __m256 (&rows)[2]) {
  const __m512i order =
      paired ? _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)
             : _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15);
  const __m512 ordered = _mm512_permutexvar_ps(order, v);
  rows[0] = _mm512_castps512_ps256(ordered);
  rows[1] = _mm512_extractf32x8_ps(ordered, 1);
}
#else
template <bool>
HEARTH_INLINE RowFloats repeat_rows(__m256 row) {
  return _mm256_permutevar8x32_ps(row, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
}
template <bool paired>
HEARTH_INLINE RowFloats fold_order(const __m256 (&rows)[1]) {
  return repeat_rows<paired>(rows[0]);
}
template <bool>
HEARTH_INLINE void unfold(RowFloats v, __m256 (&rows)[1]) {
  rows[0] = _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
}
#endif

// One step of a group of rows.
struct Weights {
  Codes codes[4];  // vector v of row r of the group is codes[kVectors r + v]
  RowFloats scales[2];
  RowFloats biases[2];
};

template <typename F>
HEARTH_INLINE void unpack_group_scales(const Byte* const* steps, Weights& w) {
  if constexpr (requires { F::fold_scales(steps, w.scales, w.biases); }) {
    return F::fold_scales(steps, w.scales, w.biases);
  }
  Scales rows[kGroupRows];
  for (int r = 0; r < kGroupRows; ++r) F::scales(steps[r], rows[r]);
  for (int half = 0; half < kQuantBlock / F::kGroup; ++half) {
    __m256 scales[kGroupRows];
    for (int r = 0; r < kGroupRows; ++r) scales[r] = rows[r].scales[half];
    w.scales[half] = fold_order<F::kPaired>(scales);
  }
  if constexpr (F::kHasBias) {
    for (int half = 0; half < kQuantBlock / F::kBiasGroup; ++half) {
      __m256 biases[kGroupRows];
      for (int r = 0; r < kGroupRows; ++r) biases[r] = rows[r].biases[half];
      w.biases[half] = fold_order<F::kPaired>(biases);
    }
  }
}

template <typename F>
HEARTH_INLINE void unpack_group(const Byte* const* steps, Weights& w) {
  if constexpr (requires { F::group_codes(steps, w.codes); }) {
    F::group_codes(steps, w.codes);
  } else {
    for (int i = 0; i < 4; ++i) {
      w.codes[i] = F::codes(OneRow{steps[i / kVectors], i % kVectors * kPieces});
    }
  }
  unpack_group_scales<F>(steps, w);
}

// One step of one token's activations. Of the pairs, [0] belongs to the first and [1] to the last
// half of each block; groups of 32 use [0] alone, for both.
struct Activations {
  Bytes lo[kVectors];
  Bytes hi[kVectors];
  Bytes starts[2][kVectors];
  RowFloats scales;
  RowFloats sums[2];
};

// A token's rounded row, or its padded last step.
struct TokenRow {
  const int8_t* codes;
  const float* scales;
  const float* sums;
};

struct PaddedStep {
  int8_t codes[kStepColumns] = {};
  float scales[kStepBlocks] = {};
  float sums[2 * kStepBlocks] = {};

  void fill(const TokenRow& row, int64_t columns) {
    const int64_t begin = columns / kStepColumns * kStepColumns;
    for (int64_t i = begin; i < columns; ++i) codes[i - begin] = row.codes[i];
    for (int64_t b = begin / 32; b < columns / 32; ++b) scales[b - begin / 32] = row.scales[b];
    for (int64_t h = begin / 16; h < columns / 16; ++h) sums[h - begin / 16] = row.sums[h];
  }
};

// Two sums a block, split into first and last halves.
HEARTH_INLINE void split_sums(const float* sums, __m256* out) {
  const __m256 a = _mm256_loadu_ps(sums), b = _mm256_loadu_ps(sums + kFloats);
  auto in_order = [](__m256 v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
  };
  out[0] = in_order(_mm256_shuffle_ps(a, b, 0x88));
  out[1] = in_order(_mm256_shuffle_ps(a, b, 0xdd));
}

template <typename F>
HEARTH_INLINE void load_activations(const int8_t* codes, const float* scales, const float* sums,
                                    Activations& x) {
  constexpr int kSize = sizeof(Bytes);
  Bytes natural[2 * kVectors];
  for (int i = 0; i < 2 * kVectors; ++i) natural[i] = load_bytes(codes + i * kSize);
  split_step<F::kPaired>(natural, x.lo, x.hi);
  for (int v = 0; v < kVectors; ++v) {
    if constexpr (kHasStart<F>) {
      const Bytes offset = splat(F::kOffset);
      if constexpr (F::kGroup == 32) {
        x.starts[0][v] =
            subtract_words(zero(), dot_add<F::kOffset>(zero(), offset, x.lo[v], offset, x.hi[v]));
      } else {
        x.starts[0][v] = subtract_words(zero(), dot_add<F::kOffset>(zero(), offset, x.lo[v]));
        x.starts[1][v] = subtract_words(zero(), dot_add<F::kOffset>(zero(), offset, x.hi[v]));
      }
    } else {
      x.starts[0][v] = x.starts[1][v] = zero();
    }
  }
  x.scales = repeat_rows<F::kPaired>(_mm256_loadu_ps(scales)) * splat_float(F::kFactor);
  if constexpr (F::kHasBias) {
    __m256 halves[2];
    split_sums(sums, halves);
    if constexpr (F::kBiasGroup == 32) halves[0] = _mm256_add_ps(halves[0], halves[1]);
    x.sums[0] = repeat_rows<F::kPaired>(halves[0]);
    if constexpr (F::kBiasGroup == 16) x.sums[1] = repeat_rows<F::kPaired>(halves[1]);
  }
}

// The group's partial sums after this step.
template <typename F>
HEARTH_INLINE RowFloats accumulate(const Weights& w, const Activations& x, RowFloats partials) {
  auto add_dots = [&](const Bytes* dots, RowFloats scales) {
    const Bytes sums = piece_sums(dots[0], dots[1], dots[2], dots[3]);
    partials = fused_add(to_floats(sums) * x.scales, scales, partials);
  };
  Bytes dots[4];
  if constexpr (F::kGroup == 32) {
    for (int i = 0; i < 4; ++i) {
      const int v = i % kVectors;
      dots[i] =
          dot_add<F::kCodeMax>(x.starts[0][v], w.codes[i].lo, x.lo[v], w.codes[i].hi, x.hi[v]);
    }
    add_dots(dots, w.scales[0]);
  } else {
    for (int i = 0; i < 4; ++i) {
      const int v = i % kVectors;
      dots[i] = dot_add<F::kCodeMax>(x.starts[0][v], w.codes[i].lo, x.lo[v]);
    }
    add_dots(dots, w.scales[0]);
    for (int i = 0; i < 4; ++i) {
      const int v = i % kVectors;
      dots[i] = dot_add<F::kCodeMax>(x.starts[1][v], w.codes[i].hi, x.hi[v]);
    }
    add_dots(dots, w.scales[1]);
  }
  if constexpr (F::kHasBias) {
    partials = fused_add(w.biases[0], x.sums[0], partials);
    if constexpr (F::kBiasGroup == 16) partials = fused_add(w.biases[1], x.sums[1], partials);
  }
  return partials;
}

HEARTH_INLINE float sum_partials(__m256 partial) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(partial), _mm256_extractf128_ps(partial, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

template <TensorType type, int tokens>
class FewTokens {
  using F = Format<type>;

 public:
  explicit FewTokens(const MatmulParams& p)
      : p_(p), weights_(p.w), rows_ahead_(rows_ahead(weights_.row_bytes)) {
    for (int t = 0; t < tokens; ++t) {
      const int64_t row = x_row(p, t), k = p.w.cols;
      rows_[t] = {p.xq.codes + row * k, p.xq.scales + row * k / 32, p.xq.sums + row * k / 16};
      if (k % kStepColumns != 0) padded_[t].fill(rows_[t], k);
    }
  }

  void run() {
    for (int64_t row = p_.row_begin; row < p_.row_end; row += kRows) multiply(row);
  }

 private:
  static constexpr int kRows = F::kRows;  // that share the work on the activations
  static constexpr int kGroups = kRows / kGroupRows;

  // Rows between those at hand and those asked for: short ones need more of them.
  static int64_t rows_ahead(int64_t row_bytes) {
    constexpr int64_t kBytesAhead = 16 << 10;
    const int64_t groups = (kBytesAhead + kRows * row_bytes - 1) / (kRows * row_bytes);
    return kRows * groups;
  }

  // From the rows at hand to those that come next: of this call, or the caller's; else none.
  int64_t bytes_ahead(int64_t row) const {
    const int64_t ahead = row + rows_ahead_;
    if (ahead < p_.row_end) return rows_ahead_ * weights_.row_bytes;
    if (p_.next == nullptr) return 0;
    return p_.next + (ahead - p_.row_end) * weights_.row_bytes - weights_.row(row);
  }

  // kRows rows from `row`; those past the end repeat the last.
  void multiply(int64_t row) {
    ahead_ = bytes_ahead(row);
    const int64_t steps = step_count(p_.w.cols);
    int64_t rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = row + r < p_.row_end ? row + r : p_.row_end - 1;
    float totals[tokens][kRows] = {};
    for (int64_t begin = 0; begin < steps; begin += kChunkSteps) {
      const int64_t end = begin + kChunkSteps < steps ? begin + kChunkSteps : steps;
      RowFloats partials[kGroups][tokens];
      for (int g = 0; g < kGroups; ++g) {
        for (int t = 0; t < tokens; ++t) partials[g][t] = splat_float(0.0f);
      }
      const int64_t whole_end = end < weights_.full_steps ? end : weights_.full_steps;
      for (int64_t step = begin; step < whole_end; ++step) add_step(rows, step, partials);
      if (F::kBlock == 32 && end > whole_end) add_padded_step(rows, whole_end, partials);
      for (int g = 0; g < kGroups; ++g) {
        for (int t = 0; t < tokens; ++t) add_chunk(partials[g][t], totals[t] + g * kGroupRows);
      }
    }
    for (int t = 0; t < tokens; ++t) {
      for (int r = 0; r < kRows; ++r) y_row(p_, t)[rows[r]] = totals[t][r];
    }
  }

  static HEARTH_INLINE void add_chunk(RowFloats partials, float* totals) {
    __m256 rows[kGroupRows];
    unfold<F::kPaired>(partials, rows);
    for (int r = 0; r < kGroupRows; ++r) totals[r] += sum_partials(rows[r]);
  }

  HEARTH_INLINE void add_step(const int64_t* rows, int64_t step,
                              RowFloats (&partials)[kGroups][tokens]) {
    Activations x[tokens];
    for (int t = 0; t < tokens; ++t) {
      load_activations<F>(rows_[t].codes + step * kStepColumns,
                          rows_[t].scales + step * kStepBlocks,
                          rows_[t].sums + step * 2 * kStepBlocks, x[t]);
    }
#pragma GCC unroll 4  // so that the groups' instructions mix
    for (int g = 0; g < kGroups; ++g) {
      const Byte* steps[kGroupRows];
      for (int r = 0; r < kGroupRows; ++r) {
        steps[r] = weights_.row(rows[g * kGroupRows + r]) + step * F::kStepBytes;
        weights_.prefetch(steps[r], ahead_);
      }
      add_group(steps, x, partials[g]);
    }
  }

  // The last step of rows that end inside it.
  [[gnu::noinline]] void add_padded_step(const int64_t* rows, int64_t step,
                                         RowFloats (&partials)[kGroups][tokens]) {
    Activations x[tokens];
    for (int t = 0; t < tokens; ++t) {
      load_activations<F>(padded_[t].codes, padded_[t].scales, padded_[t].sums, x[t]);
    }
    for (int g = 0; g < kGroups; ++g) {
      Byte padded[kGroupRows][F::kStepBytes];
      const Byte* steps[kGroupRows];
      for (int r = 0; r < kGroupRows; ++r) {
        steps[r] = weights_.at(rows[g * kGroupRows + r], step, padded[r]);
      }
      add_group(steps, x, partials[g]);
    }
  }

  static HEARTH_INLINE void add_group(const Byte* const* steps, const Activations* x,
                                      RowFloats* partials) {
    Weights w;
    unpack_group<F>(steps, w);
    for (int t = 0; t < tokens; ++t) partials[t] = accumulate<F>(w, x[t], partials[t]);
  }

  const MatmulParams& p_;
  StepReader<F> weights_;
  const int64_t rows_ahead_;
  int64_t ahead_ = 0;
  TokenRow rows_[tokens];
  PaddedStep padded_[tokens];
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
