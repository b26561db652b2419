// The indexer of CSA layers: scores every compressed entry and keeps the best top_k a query. Rows
// go in groups, as scores of a long context are many.
#include <algorithm>
#include <cmath>

#include "model/device/step.h"

namespace hearth {
namespace {

constexpr int32_t kRatio = static_cast<int32_t>(LayerKind::kCsa);

struct Group {
  int64_t first;
  int64_t n;
};

void score_entries(const DeviceStep& step, int32_t layer, Group group) {
  const ModelConfig& config = step.config;
  const int64_t heads = config.index_heads, dim = config.index_dim;
  step.kernels.index_scores(
      {.q = step.act.index_q + group.first * heads * dim,
       .head_weights = step.act.index_weights + group.first * heads,
       .rows = step.batch.rows + group.first,
       .caches = step.caches(layer),
       .kv_type = step.batch.kv_type,
       .n = group.n,
       .heads = config.index_heads,
       .dim = config.index_dim,
       .scale = 1.0f / std::sqrt(static_cast<float>(heads) * static_cast<float>(dim)),
       .ratio = kRatio,
       .entries_max = std::min(step.batch.index_entries, step.act.entries_max),
       .scores = step.act.index_scores,
       .scores_stride = step.act.entries_max},
      step.stream);
}

}  // namespace

void select_entries(const DeviceStep& step, int32_t layer) {
  const int32_t top_k = step.config.index_top_k;
  step.meter.mark(Stage::kIndexer);
  for (int64_t first = 0; first < step.batch.n; first += step.act.index_group) {
    const Group group{first, std::min(step.act.index_group, step.batch.n - first)};
    // Else every entry is seen.
    if (step.batch.index_entries > top_k) score_entries(step, layer, group);
    step.kernels.select_top_k({.scores = step.act.index_scores,
                               .scores_stride = step.act.entries_max,
                               .rows = step.batch.rows + first,
                               .n = group.n,
                               .ratio = kRatio,
                               .top_k = top_k,
                               .selected = step.act.selected + first * top_k,
                               .counts = step.act.selected_count + first},
                              step.stream);
  }
}

}  // namespace hearth
