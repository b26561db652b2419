// Attention of one query position over gathered rows. All heads share the rows (K = V), so tiles of
// heads and rows reuse every loaded row; sums run over dimensions and rows in order, whatever the
// tile.
#include "cpu_kernels/bodies/isa.h"
#include "cpu_kernels/bodies/kv_row.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int32_t kLanes = FloatVec::size;
constexpr int kHeadTile = 4;
constexpr int kRowTile = kLanes == 16 ? 4 : 2;  // 32 vector registers or 16
constexpr int kDimTile = 2;                     // vectors of output in flight per head

// scores[h][r] = q[h] . rows[r] * scale for `heads` x `n` of them.
template <KvType type, int heads, int n>
void score_tile(const AttentionParams& p, const float* q, int32_t first_row, float* scores) {
  using Row = KvRow<type>;
  const typename Row::Value* rows[n];
  for (int r = 0; r < n; ++r) {
    rows[r] = static_cast<const typename Row::Value*>(p.rows[first_row + r]);
  }
  FloatVec sums[heads][n];
  for (int h = 0; h < heads; ++h) {
    for (int r = 0; r < n; ++r) sums[h][r] = FloatVec(0.0f);
  }
  int32_t d = 0;
  for (; d + kLanes <= p.dim; d += kLanes) {
    FloatVec keys[n];
    for (int r = 0; r < n; ++r) keys[r] = Row::load(rows[r] + d);
    for (int h = 0; h < heads; ++h) {
      const FloatVec query = FloatVec::load_unaligned(q + h * p.dim + d);
      for (int r = 0; r < n; ++r) sums[h][r] = xsimd::fma(query, keys[r], sums[h][r]);
    }
  }
  for (int h = 0; h < heads; ++h) {
    for (int r = 0; r < n; ++r) {
      float sum = xsimd::hadd(sums[h][r]);
      for (int32_t i = d; i < p.dim; ++i) sum += q[h * p.dim + i] * Row::at(rows[r], i);
      scores[static_cast<int64_t>(h) * p.n_rows + first_row + r] = sum * p.scale;
    }
  }
}

template <KvType type, int heads>
void score_heads(const AttentionParams& p, const float* q, float* scores) {
  int32_t row = 0;
  for (; row + kRowTile <= p.n_rows; row += kRowTile) {
    score_tile<type, heads, kRowTile>(p, q, row, scores);
  }
  for (; row < p.n_rows; ++row) score_tile<type, heads, 1>(p, q, row, scores);
}

// Softmax over one head's scores and its sink; the sink takes its share and is dropped.
void softmax_with_sink(float* scores, int32_t n, float sink) {
  float largest = sink;
  for (int32_t r = 0; r < n; ++r) largest = scores[r] > largest ? scores[r] : largest;
  float padded[kLanes];
  float total = __builtin_expf(sink - largest);
  const FloatVec shift(largest);
  int32_t r = 0;
  FloatVec totals(0.0f);
  for (; r + kLanes <= n; r += kLanes) {
    const FloatVec weight = xsimd::exp(FloatVec::load_unaligned(scores + r) - shift);
    weight.store_unaligned(scores + r);
    totals += weight;
  }
  total += xsimd::hadd(totals);
  if (r < n) {
    for (int32_t i = 0; i < kLanes; ++i) padded[i] = r + i < n ? scores[r + i] : largest;
    xsimd::exp(FloatVec::load_unaligned(padded) - shift).store_unaligned(padded);
    for (int32_t i = 0; r + i < n; ++i) total += scores[r + i] = padded[i];
  }
  const FloatVec share(1.0f / total);
  for (r = 0; r + kLanes <= n; r += kLanes) {
    (FloatVec::load_unaligned(scores + r) * share).store_unaligned(scores + r);
  }
  for (; r < n; ++r) scores[r] /= total;
}

// out[h][d ..] = sum over rows of weights[h][r] * rows[r][d ..], `vectors` vectors of d.
template <KvType type, int heads, int vectors>
void value_tile(const AttentionParams& p, const float* weights, int32_t d, float* out) {
  using Row = KvRow<type>;
  FloatVec sums[heads][vectors];
  for (int h = 0; h < heads; ++h) {
    for (int v = 0; v < vectors; ++v) sums[h][v] = FloatVec(0.0f);
  }
  for (int32_t r = 0; r < p.n_rows; ++r) {
    const auto* row = static_cast<const typename Row::Value*>(p.rows[r]) + d;
    FloatVec values[vectors];
    for (int v = 0; v < vectors; ++v) values[v] = Row::load(row + v * kLanes);
    for (int h = 0; h < heads; ++h) {
      const FloatVec weight(weights[static_cast<int64_t>(h) * p.n_rows + r]);
      for (int v = 0; v < vectors; ++v) sums[h][v] = xsimd::fma(weight, values[v], sums[h][v]);
    }
  }
  for (int h = 0; h < heads; ++h) {
    for (int v = 0; v < vectors; ++v) sums[h][v].store_unaligned(out + h * p.dim + d + v * kLanes);
  }
}

template <KvType type, int heads>
void sum_values(const AttentionParams& p, const float* weights, float* out) {
  using Row = KvRow<type>;
  int32_t d = 0;
  for (; d + kDimTile * kLanes <= p.dim; d += kDimTile * kLanes) {
    value_tile<type, heads, kDimTile>(p, weights, d, out);
  }
  for (; d + kLanes <= p.dim; d += kLanes) value_tile<type, heads, 1>(p, weights, d, out);
  for (; d < p.dim; ++d) {
    for (int h = 0; h < heads; ++h) {
      float sum = 0;
      for (int32_t r = 0; r < p.n_rows; ++r) {
        const auto* row = static_cast<const typename Row::Value*>(p.rows[r]);
        sum += weights[static_cast<int64_t>(h) * p.n_rows + r] * Row::at(row, d);
      }
      out[h * p.dim + d] = sum;
    }
  }
}

template <KvType type, int heads>
void attend_heads(const AttentionParams& p, int32_t head, float* scores) {
  const float* q = p.q + static_cast<int64_t>(head) * p.dim;
  score_heads<type, heads>(p, q, scores);
  for (int h = 0; h < heads; ++h) {
    softmax_with_sink(scores + static_cast<int64_t>(h) * p.n_rows, p.n_rows, p.sinks[head + h]);
  }
  sum_values<type, heads>(p, scores, p.out + static_cast<int64_t>(head) * p.dim);
}

template <KvType type>
void attend(const AttentionParams& p) {
  int32_t head = p.head_begin;
  for (; head + kHeadTile <= p.head_end; head += kHeadTile) {
    attend_heads<type, kHeadTile>(p, head, p.scores);
  }
  for (; head < p.head_end; ++head) attend_heads<type, 1>(p, head, p.scores);
}

}  // namespace

void attention(const AttentionParams& p) {
  if (p.kv_type == KvType::kF32) {
    attend<KvType::kF32>(p);
  } else {
    attend<KvType::kBF16>(p);
  }
}

}  // namespace hearth::HEARTH_ISA
