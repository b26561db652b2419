// Scores of the indexer: one number per compressed entry. Heads are the vector lanes, so a key
// needs one horizontal sum however many heads there are.
#include "cpu_kernels/bodies/isa.h"
#include "cpu_kernels/bodies/kv_row.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int32_t kLanes = FloatVec::size;
constexpr int kKeyTile = 4;
constexpr int kHeadVectors = 2;  // vectors of heads in flight

// Adds the heads' weighted, rectified scores of `keys` keys to totals[key].
template <KvType type, int keys, int vectors>
void score_heads(const IndexScoreParams& p, int64_t first_key, int32_t head, FloatVec* totals) {
  using Row = KvRow<type>;
  const auto* rows = static_cast<const typename Row::Value*>(p.keys) + first_key * p.dim;
  FloatVec sums[keys][vectors];
  for (int e = 0; e < keys; ++e) {
    for (int v = 0; v < vectors; ++v) sums[e][v] = FloatVec(0.0f);
  }
  for (int32_t d = 0; d < p.dim; ++d) {
    FloatVec q[vectors];
    for (int v = 0; v < vectors; ++v) {
      q[v] = FloatVec::load_unaligned(p.q + static_cast<int64_t>(d) * p.heads + head + v * kLanes);
    }
    for (int e = 0; e < keys; ++e) {
      const FloatVec key(Row::at(rows + e * p.dim, d));
      for (int v = 0; v < vectors; ++v) sums[e][v] = xsimd::fma(key, q[v], sums[e][v]);
    }
  }
  for (int v = 0; v < vectors; ++v) {
    const FloatVec weight = FloatVec::load_unaligned(p.head_weights + head + v * kLanes);
    for (int e = 0; e < keys; ++e) {
      totals[e] = xsimd::fma(weight, xsimd::max(sums[e][v], FloatVec(0.0f)), totals[e]);
    }
  }
}

template <KvType type, int keys>
void score_keys(const IndexScoreParams& p, int64_t first_key) {
  FloatVec totals[keys];
  for (int e = 0; e < keys; ++e) totals[e] = FloatVec(0.0f);
  int32_t head = 0;
  for (; head + kHeadVectors * kLanes <= p.heads; head += kHeadVectors * kLanes) {
    score_heads<type, keys, kHeadVectors>(p, first_key, head, totals);
  }
  for (; head < p.heads; head += kLanes) {
    score_heads<type, keys, 1>(p, first_key, head, totals);
  }
  for (int e = 0; e < keys; ++e) p.scores[first_key + e] = xsimd::hadd(totals[e]);
}

template <KvType type>
void score_range(const IndexScoreParams& p) {
  int64_t key = p.key_begin;
  for (; key + kKeyTile <= p.key_end; key += kKeyTile) score_keys<type, kKeyTile>(p, key);
  for (; key < p.key_end; ++key) score_keys<type, 1>(p, key);
}

}  // namespace

void index_scores(const IndexScoreParams& p) {
  if (p.kv_type == KvType::kF32) {
    score_range<KvType::kF32>(p);
  } else {
    score_range<KvType::kBF16>(p);
  }
}

}  // namespace hearth::HEARTH_ISA
