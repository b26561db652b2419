// Attention of a prefill in tiles, over bfloat16 rows: all heads share the rows, so the scores of
// one query are rows times queries, and its outputs weights times rows.
#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/amx/tile_product.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kHeadsMax = 64;  // taken at a time
constexpr int kDimMax = 512;
constexpr int kRowsMin = 32;
constexpr int kChunkRows = 256;  // whose pairs stay in the second-level cache
constexpr int kBlockRows = 32;   // of two tiles

// Heads head .. head + heads - 1, a multiple of sixteen, of one query.
class TileAttention {
 public:
  TileAttention(const AttentionParams& p, int32_t head, int32_t heads)
      : p_(p), head_(head), groups_(heads / 16) {}

  void run() {
    unit_.configure({16, 16, 16, 16, 16, 16, 16, 16});
    transpose_queries();
    for (int32_t row = 0; row < p_.n_rows; row += kBlockRows) score_rows(row);
    for (int g = 0; g < groups_; ++g) {
      weigh_scores(g);
      round_weights(g);
    }
    for (int32_t row = 0; row < p_.n_rows; row += kChunkRows) {
      pair_rows(row);
      for (int g = 0; g < groups_; g += 2) {
        for (int32_t d = 0; d < p_.dim; d += 32) add_values(row, g, d);
      }
    }
  }

 private:
  int64_t group_values() const { return int64_t{p_.dim} * 16; }  // of sixteen queries
  // Scores of sixteen heads: [n_rows, 16].
  float* scores(int g) const { return p_.scores + int64_t{g} * p_.n_rows * 16; }
  // Their weights, which take the place of the scores: tiles of sixteen heads by 32 rows.
  uint16_t* weights(int g) const { return reinterpret_cast<uint16_t*>(scores(g)); }
  // Rows past the last one repeat it; their weights are zero.
  const uint16_t* row_at(int32_t row) const {
    return static_cast<const uint16_t*>(p_.rows[row < p_.n_rows ? row : p_.n_rows - 1]);
  }

  void transpose_queries() {
    alignas(64) uint16_t rounded[16][32];
    uint16_t* out = queries_;
    for (int g = 0; g < groups_; ++g) {
      const float* q = p_.q + int64_t{head_ + 16 * g} * p_.dim;
      for (int32_t d = 0; d < p_.dim; d += 32, out += kTileValues) {
        for (int h = 0; h < 16; ++h) {
          const float* from = q + int64_t{h} * p_.dim + d;
          const __m512bh pair =
              _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
          store_bytes(rounded[h], reinterpret_cast<Bytes>(pair));
        }
        transpose_tile([&](int h) { return rounded[h]; }, out);
      }
    }
  }

  // Sixteen rows where they are if they lie evenly spaced, else copied together.
  const uint16_t* take_rows(int32_t first, uint16_t* copies, int64_t* stride) {
    const uint16_t* begin = row_at(first);
    *stride = row_at(first + 1) - begin;
    bool even = true;
    for (int r = 0; r < 16; ++r) even &= row_at(first + r) == begin + r * *stride;
    if (even) return begin;
    *stride = p_.dim;
    for (int r = 0; r < 16; ++r) {
      __builtin_memcpy(copies + r * *stride, row_at(first + r), p_.dim * sizeof(uint16_t));
    }
    return copies;
  }

  // Registers: sums 0, 1 of the first sixteen rows, 2, 3 of the others; 4, 5 have rows, 6, 7
  // queries of two groups. Without a second group the first is taken for it.
  void score_rows(int32_t row) {
    int64_t stride[2];
    const uint16_t* rows[2];
    for (int i = 0; i < 2; ++i) rows[i] = take_rows(row + 16 * i, copies_[i], &stride[i]);
    for (int g = 0; g < groups_; g += 2) {
      const int second = g + 1 < groups_ ? 1 : 0;
      const uint16_t* q = queries_ + g * group_values();
      unit_.zero<0>(), unit_.zero<1>(), unit_.zero<2>(), unit_.zero<3>();
      for (int32_t d = 0; d < p_.dim; d += 32, q += kTileValues) {
        unit_.load<4>(rows[0] + d, 2 * stride[0]);
        unit_.load<6>(q, kTileBytes);
        unit_.multiply<0, 4, 6>();
        unit_.load<7>(q + second * group_values(), kTileBytes);
        unit_.multiply<1, 4, 7>();
        unit_.load<5>(rows[1] + d, 2 * stride[1]);
        unit_.multiply<2, 5, 6>();
        unit_.multiply<3, 5, 7>();
      }
      unit_.store<0>(sums_[0], kTileBytes), unit_.store<1>(sums_[1], kTileBytes);
      unit_.store<2>(sums_[2], kTileBytes), unit_.store<3>(sums_[3], kTileBytes);
      for (int i = 0; i <= second; ++i) {
        keep_scores(g + i, row, sums_[i]);
        keep_scores(g + i, row + 16, sums_[2 + i]);
      }
    }
  }

  void keep_scores(int g, int32_t row, const float* sums) {
    const int count = least(p_.n_rows - row, 16);
    if (count > 0) __builtin_memcpy(scores(g) + row * 16, sums, count * kTileBytes);
  }

  // Softmax over each head's scores and its sink, which takes its share and is dropped.
  void weigh_scores(int g) {
    float* s = scores(g);
    const FloatVec scale(p_.scale);
    const FloatVec sink = FloatVec::load_unaligned(p_.sinks + head_ + 16 * g);
    FloatVec largest = sink;
    for (int32_t r = 0; r < p_.n_rows; ++r) {
      largest = xsimd::max(largest, FloatVec::load_unaligned(s + r * 16) * scale);
    }
    FloatVec total = xsimd::exp(sink - largest);
    for (int32_t r = 0; r < p_.n_rows; ++r) {
      const FloatVec score = FloatVec::load_unaligned(s + r * 16) * scale;
      const FloatVec weight = xsimd::exp(score - largest);
      weight.store_unaligned(s + r * 16);
      total += weight;
    }
    (FloatVec(1.0f) / total).store_aligned(shares_);
  }

  void round_weights(int g) {
    const __m512 share = _mm512_load_ps(shares_);
    uint16_t* out = weights(g);
    for (int32_t row = 0; row < p_.n_rows; row += kBlockRows, out += kTileValues) {
      alignas(64) uint16_t pairs[16][32];
      auto weight = [&](int32_t r) {
        if (r >= p_.n_rows) return _mm512_setzero_ps();
        return _mm512_mul_ps(_mm512_loadu_ps(scores(g) + r * 16), share);
      };
      for (int i = 0; i < 16; ++i) {
        const int32_t first = row + 2 * i;
        store_bytes(pairs[i], pair_values(weight(first), weight(first + 1)));
      }
      transpose_tile([&](int i) { return pairs[i]; }, out);
    }
  }

  // Pairs of a chunk's rows, value by value.
  void pair_rows(int32_t first) {
    const int count = least(p_.n_rows - first, kChunkRows);
    uint16_t* out = pairs_;
    for (int r = 0; r < (count + kBlockRows - 1) / kBlockRows * kBlockRows; r += 2) {
      const uint16_t* a = row_at(first + r);
      const uint16_t* b = row_at(first + r + 1);
      for (int32_t d = 0; d < p_.dim; d += 32, out += 64) {
        const Bytes even = load_bytes(a + d), odd = load_bytes(b + d);
        store_bytes(out, interleave_words(even, odd, false));
        store_bytes(out + 32, interleave_words(even, odd, true));
      }
    }
  }

  // Adds a chunk of rows to 32 values of two groups of heads. Registers: sums 0, 1 of the first
  // group, 2, 3 of the other; 4, 5 have weights, 6, 7 rows.
  void add_values(int32_t first, int g, int32_t d) {
    const bool two = g + 1 < groups_;
    const int64_t out_stride = int64_t{p_.dim} * 4, row_stride = int64_t{p_.dim} * 4;
    float* out = p_.out + int64_t{head_ + 16 * g} * p_.dim + d;
    float* other = out + (two ? int64_t{16} * p_.dim : 0);
    if (first == 0) {
      unit_.zero<0>(), unit_.zero<1>(), unit_.zero<2>(), unit_.zero<3>();
    } else {
      unit_.load<0>(out, out_stride), unit_.load<1>(out + 16, out_stride);
      unit_.load<2>(other, out_stride), unit_.load<3>(other + 16, out_stride);
    }
    const uint16_t* w = weights(g) + int64_t{first} * 16;
    const uint16_t* other_w = two ? weights(g + 1) + int64_t{first} * 16 : w;
    const uint16_t* values = pairs_ + 2 * d;
    const int count = least(p_.n_rows - first, kChunkRows);
    for (int r = 0; r < count; r += kBlockRows) {
      unit_.load<4>(w + r * 16, kTileBytes);
      unit_.load<6>(values, row_stride);
      unit_.multiply<0, 4, 6>();
      unit_.load<7>(values + 32, row_stride);
      unit_.multiply<1, 4, 7>();
      unit_.load<5>(other_w + r * 16, kTileBytes);
      unit_.multiply<2, 5, 6>();
      unit_.multiply<3, 5, 7>();
      values += int64_t{kBlockRows} * p_.dim;
    }
    unit_.store<0>(out, out_stride), unit_.store<1>(out + 16, out_stride);
    if (two) unit_.store<2>(other, out_stride), unit_.store<3>(other + 16, out_stride);
  }

  const AttentionParams& p_;
  const int32_t head_;
  const int groups_;  // of sixteen heads
  TileUnit unit_;
  alignas(64) uint16_t queries_[kHeadsMax * kDimMax];
  alignas(64) uint16_t copies_[2][16 * kDimMax];
  alignas(64) uint16_t pairs_[kChunkRows * kDimMax];
  alignas(64) float sums_[4][kTileFloats];
  alignas(64) float shares_[16];  // one over the sum of weights of each head of a group
};

}  // namespace

void attention(const AttentionParams& p) {
  const bool fits = p.prefill && p.kv_type == KvType::kBF16 && p.dim % 32 == 0 &&
                    p.dim <= kDimMax && p.n_rows >= kRowsMin;
  AttentionParams rest = p;
  while (fits && p.head_end - rest.head_begin >= 16) {
    const int32_t heads = least((p.head_end - rest.head_begin) / 16 * 16, kHeadsMax);
    TileAttention(p, rest.head_begin, heads).run();
    rest.head_begin += heads;
  }
  if (rest.head_begin < rest.head_end) avx512::attention(rest);
}

}  // namespace hearth::HEARTH_ISA
