// Block-format matmul for up to kFewTokens tokens: streams the weights once, straight from memory
// to registers.
#pragma once

#include "cpu_kernels/bodies/matmul_blocks.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kFewTokens = 4;

// One step of a row.
struct Weights {
  Codes codes[kVectors];
  Scales scales;
};

template <typename F>
HEARTH_INLINE void unpack_step(const Byte* step, Weights& w) {
  for (int v = 0; v < kVectors; ++v) w.codes[v] = F::codes(OneRow{step, v * kPieces});
  F::scales(step, w.scales);
}

// One step of one token's activations. Of the pairs, [0] belongs to the first and [1] to the last
// half of each block; groups of 32 use [0] alone, for both.
struct Activations {
  Bytes lo[kVectors];
  Bytes hi[kVectors];
  Bytes starts[2][kVectors];
  __m256 scales;
  __m256 sums[2];
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
  for (int v = 0; v < kVectors; ++v) {
    const Bytes first = load_bytes(codes + 2 * v * kSize);
    const Bytes second = load_bytes(codes + (2 * v + 1) * kSize);
    split_halves(first, second, x.lo[v], x.hi[v]);
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
  x.scales = _mm256_loadu_ps(scales);
  if constexpr (F::kHasBias) {
    split_sums(sums, x.sums);
    if constexpr (F::kGroup == 32) x.sums[0] = _mm256_add_ps(x.sums[0], x.sums[1]);
  }
}

// The eight partial sums after this step.
template <typename F>
HEARTH_INLINE __m256 accumulate(const Weights& w, const Activations& x, __m256 partial) {
  Bytes dots[kVectors];
  auto add = [&](int half) {
    const __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(piece_sums(dots)), x.scales);
    partial = _mm256_fmadd_ps(values, w.scales.scales[half], partial);
  };
  if constexpr (F::kGroup == 32) {
    for (int v = 0; v < kVectors; ++v) {
      dots[v] =
          dot_add<F::kCodeMax>(x.starts[0][v], w.codes[v].lo, x.lo[v], w.codes[v].hi, x.hi[v]);
    }
    add(0);
  } else {
    for (int v = 0; v < kVectors; ++v)
      dots[v] = dot_add<F::kCodeMax>(x.starts[0][v], w.codes[v].lo, x.lo[v]);
    add(0);
    for (int v = 0; v < kVectors; ++v)
      dots[v] = dot_add<F::kCodeMax>(x.starts[1][v], w.codes[v].hi, x.hi[v]);
    add(1);
  }
  if constexpr (F::kHasBias) {
    partial = _mm256_fmadd_ps(w.scales.biases[0], x.sums[0], partial);
    if constexpr (F::kGroup == 16)
      partial = _mm256_fmadd_ps(w.scales.biases[1], x.sums[1], partial);
  }
  return partial;
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
  explicit FewTokens(const MatmulParams& p) : p_(p), weights_(p.w) {
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
  static constexpr int kRows = tokens == 1 ? 4 : 2;  // that share the work on the activations

  // kRows rows from `row`; those past the end repeat the last.
  void multiply(int64_t row) {
    const int64_t steps = step_count(p_.w.cols);
    int64_t rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = row + r < p_.row_end ? row + r : p_.row_end - 1;
    float totals[kRows][tokens] = {};
    for (int64_t begin = 0; begin < steps; begin += kChunkSteps) {
      const int64_t end = begin + kChunkSteps < steps ? begin + kChunkSteps : steps;
      __m256 partials[kRows][tokens];
      for (int r = 0; r < kRows; ++r) {
        for (int t = 0; t < tokens; ++t) partials[r][t] = _mm256_setzero_ps();
      }
      for (int64_t step = begin; step < end; ++step) add_step(rows, step, partials);
      for (int r = 0; r < kRows; ++r) {
        for (int t = 0; t < tokens; ++t) totals[r][t] += sum_partials(partials[r][t]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < tokens; ++t) y_row(p_, t)[rows[r]] = totals[r][t];
    }
  }

  HEARTH_INLINE void add_step(const int64_t* rows, int64_t step,
                              __m256 (&partials)[kRows][tokens]) {
    Activations x[tokens];
    for (int t = 0; t < tokens; ++t) load_token(t, step, x[t]);
#pragma GCC unroll 4  // so that the rows' instructions mix
    for (int r = 0; r < kRows; ++r) {
      Byte padded[F::kStepBytes];
      const Byte* bytes = weights_.at(rows[r], step, padded);
      weights_.prefetch(bytes, kRows);
      Weights w;
      unpack_step<F>(bytes, w);
      for (int t = 0; t < tokens; ++t) partials[r][t] = accumulate<F>(w, x[t], partials[r][t]);
    }
  }

  HEARTH_INLINE void load_token(int t, int64_t step, Activations& x) {
    if (F::kBlock == 32 && step >= weights_.full_steps) {
      load_activations<F>(padded_[t].codes, padded_[t].scales, padded_[t].sums, x);
    } else {
      load_activations<F>(rows_[t].codes + step * kStepColumns,
                          rows_[t].scales + step * kStepBlocks,
                          rows_[t].sums + step * 2 * kStepBlocks, x);
    }
  }

  const MatmulParams& p_;
  StepReader<F> weights_;
  TokenRow rows_[tokens];
  PaddedStep padded_[tokens];
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
