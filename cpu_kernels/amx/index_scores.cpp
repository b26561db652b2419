// Scores of the indexer in tiles, for the tokens of a prompt: bfloat16 keys, which lie as tiles
// want them, times a query's heads. A query is the sum of two bfloat16 values: which entries are
// the best must not hang on how it is rounded.
#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/amx/tile_product.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kHeadsMax = 64;
constexpr int kDimMax = 256;
constexpr int kBlockKeys = 32;  // of two tiles

// What rounding to bfloat16 leaves of a value.
HEARTH_INLINE __m512 rest_of(__m512 x) {
  const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
  const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
  return _mm512_sub_ps(x, _mm512_castsi512_ps(bits));
}

class TileIndexScores {
 public:
  explicit TileIndexScores(const IndexScoreParams& p) : p_(p), groups_(p.heads / 16) {}

  void run() {
    unit_.configure({16, 16, 16, 16, 16, 16, 16, 16});
    round_query();
    for (int64_t key = p_.key_begin; key < p_.key_end; key += kBlockKeys) {
      const int count = least(p_.key_end - key, kBlockKeys);
      const uint16_t* keys = take_keys(key, count);
      for (int g = 0; g < groups_; g += 2) add_heads(keys, g);
      for (int k = 0; k < count; k += 16) write_scores(totals_[k], count - k, key + k);
    }
  }

 private:
  int64_t group_values() const { return int64_t{p_.dim} * 16 * 2; }  // of sixteen heads

  // Right tiles of each sixteen heads, 32 values deep: the rounded values, then their rests.
  void round_query() {
    uint16_t* out = query_;
    for (int g = 0; g < groups_; ++g) {
      for (int32_t d = 0; d < p_.dim; d += 32, out += 2 * kTileValues) round_tile(g, d, out);
    }
  }
  void round_tile(int g, int32_t first, uint16_t* out) {
    for (int32_t pair = 0; pair < 16; ++pair, out += 32) {
      const float* q = p_.q + int64_t{first + 2 * pair} * p_.heads + 16 * g;
      const __m512 even = _mm512_loadu_ps(q), odd = _mm512_loadu_ps(q + p_.heads);
      store_bytes(out, pair_values(even, odd));
      store_bytes(out + kTileValues, pair_values(rest_of(even), rest_of(odd)));
    }
  }

  // The keys where they are, or fewer than a block copied, with zeros after them.
  const uint16_t* take_keys(int64_t first, int count) {
    const uint16_t* keys = static_cast<const uint16_t*>(p_.keys) + first * p_.dim;
    if (count == kBlockKeys) return keys;
    const int values = count * p_.dim;
    __builtin_memcpy(copies_, keys, values * sizeof(uint16_t));
    __builtin_memset(copies_ + values, 0, (kBlockKeys * p_.dim - values) * sizeof(uint16_t));
    return copies_;
  }

  // Registers: sums 0, 1 of the first sixteen keys, 2, 3 of the others; 4, 5 have keys, 6, 7 heads
  // of two groups. Without a second group the first is taken for it.
  void add_heads(const uint16_t* keys, int g) {
    const bool two = g + 1 < groups_;
    const int64_t stride = int64_t{p_.dim} * 2;
    const uint16_t* q = query_ + g * group_values();
    const uint16_t* other_q = two ? q + group_values() : q;
    unit_.zero<0>(), unit_.zero<1>(), unit_.zero<2>(), unit_.zero<3>();
    for (int32_t d = 0; d < p_.dim; d += 32) {
      unit_.load<4>(keys + d, stride);
      unit_.load<5>(keys + 16 * int64_t{p_.dim} + d, stride);
      for (int part = 0; part < 2; ++part, q += kTileValues, other_q += kTileValues) {
        unit_.load<6>(q, kTileBytes);
        unit_.multiply<0, 4, 6>();
        unit_.load<7>(other_q, kTileBytes);
        unit_.multiply<1, 4, 7>();
        unit_.multiply<2, 5, 6>();
        unit_.multiply<3, 5, 7>();
      }
    }
    unit_.store<0>(sums_[0], kTileBytes), unit_.store<1>(sums_[1], kTileBytes);
    unit_.store<2>(sums_[2], kTileBytes), unit_.store<3>(sums_[3], kTileBytes);
    const __m512 zero = _mm512_setzero_ps();
    const __m512 weights = _mm512_loadu_ps(p_.head_weights + 16 * g);
    const __m512 other_weights = two ? _mm512_loadu_ps(p_.head_weights + 16 * (g + 1)) : zero;
    for (int k = 0; k < kBlockKeys; ++k) {
      const float* sums = sums_[k / 16 * 2] + k % 16 * 16;
      __m512 total = g == 0 ? zero : _mm512_load_ps(totals_[k]);
      total = _mm512_fmadd_ps(weights, _mm512_max_ps(_mm512_load_ps(sums), zero), total);
      total = _mm512_fmadd_ps(other_weights,
                              _mm512_max_ps(_mm512_load_ps(sums + kTileFloats), zero), total);
      _mm512_store_ps(totals_[k], total);
    }
  }

  // Sixteen keys' totals, each summed over its sixteen lanes of heads.
  void write_scores(const float (&first)[16], int count, int64_t key) {
    alignas(64) float lanes[16][16];
    transpose_tile([&](int k) { return first + k * 16; }, lanes);
    __m512 sum = _mm512_setzero_ps();
    for (const auto& lane : lanes) sum = _mm512_add_ps(sum, _mm512_load_ps(lane));
    const auto mask = static_cast<__mmask16>(0xffff >> (16 - least(count, 16)));
    _mm512_mask_storeu_ps(p_.scores + key, mask, sum);
  }

  const IndexScoreParams& p_;
  const int groups_;  // of sixteen heads
  TileUnit unit_;
  alignas(64) uint16_t query_[2 * kHeadsMax * kDimMax];
  alignas(64) uint16_t copies_[kBlockKeys * kDimMax];
  alignas(64) float sums_[4][kTileFloats];
  alignas(64) float totals_[kBlockKeys][16];
};

}  // namespace

void index_scores(const IndexScoreParams& p) {
  const bool fits = p.prefill && p.kv_type == KvType::kBF16 && p.dim % 32 == 0 &&
                    p.dim <= kDimMax && p.heads <= kHeadsMax;
  if (fits) {
    TileIndexScores(p).run();
  } else {
    avx512::index_scores(p);
  }
}

}  // namespace hearth::HEARTH_ISA
