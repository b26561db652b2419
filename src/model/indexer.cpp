// The indexer of CSA layers: scores every compressed entry with small heads and keeps the best
// top_k a query.
#include <algorithm>
#include <cmath>

#include "model/best_entries.h"
#include "model/cache_reads.h"
#include "model/step.h"

namespace hearth {
namespace {

// Entries a token at `position` may attend to.
int64_t visible_entries(int64_t position) {
  return (position + 1) / static_cast<int64_t>(LayerKind::kCsa);
}

// Rows of the batch whose scores are computed together; slot i serves row first + i.
struct Group {
  int32_t first;
  int32_t n;
};

// One row's index heads as kernels read them: transposed, padded to whole vectors, weights scaled.
void prepare_row(Step& step, int32_t row, int32_t slot) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  const int32_t heads = config.index_heads, dim = config.index_dim, lanes = act.index_lanes;
  const float* q = act.index_q.as<float>() + static_cast<int64_t>(row) * heads * dim;
  const float* weights = act.index_weights.as<float>() + static_cast<int64_t>(row) * heads;
  float* q_transposed =
      act.index_q_transposed.as<float>() + static_cast<int64_t>(slot) * dim * lanes;
  float* padded = act.index_weights_padded.as<float>() + static_cast<int64_t>(slot) * lanes;

  const float scale = 1.0f / std::sqrt(static_cast<float>(heads) * static_cast<float>(dim));
  for (int32_t head = 0; head < heads; ++head) {
    padded[head] = weights[head] * scale;
    for (int32_t d = 0; d < dim; ++d) q_transposed[d * lanes + head] = q[head * dim + d];
  }
}

void score_keys(Step& step, int32_t layer, int32_t row, int32_t slot, int64_t key_begin,
                int64_t key_end) {
  const Activations& act = step.act;
  const KvCache& cache = *step.batch.rows[row].cache;
  const CompressedCache& keys = step.batch.rows[row].cache->layer(layer).index;
  const int32_t dim = step.config.index_dim, lanes = act.index_lanes;
  step.compute.kernels.index_scores(
      {.q = act.index_q_transposed.as<float>() + static_cast<int64_t>(slot) * dim * lanes,
       .head_weights = act.index_weights_padded.as<float>() + static_cast<int64_t>(slot) * lanes,
       .keys = keys.rows.data(),
       .kv_type = cache.type(),
       .heads = lanes,
       .dim = dim,
       .key_begin = key_begin,
       .key_end = key_end,
       .scores = act.index_scores.as<float>() + slot * act.entries_max,
       .prefill = step.compute.prefill});
}

// The best entries of one row, whose scores lie in a slot.
void keep_rows_best(Step& step, int32_t row, int32_t slot, int64_t visible, int thread) {
  Activations& act = step.act;
  const int64_t entries = act.entries_max, top_k = step.config.index_top_k;
  keep_best({act.index_scores.as<float>() + slot * entries, static_cast<size_t>(entries)}, visible,
            act.index_order.as<int32_t>() + thread * entries,
            {act.selected.as<int32_t>() + row * top_k, static_cast<size_t>(top_k)});
}

void select_for_group(Step& step, int32_t layer, Group group) {
  const Workers& workers = step.compute.workers;
  const int32_t top_k = step.config.index_top_k;
  auto visible = [&](int64_t slot) {
    return visible_entries(step.batch.rows[group.first + slot].position);
  };

  int64_t longest = 0;
  for (int32_t slot = 0; slot < group.n; ++slot) longest = std::max(longest, visible(slot));
  if (longest <= top_k) return;  // every entry is seen

  workers.for_range(group.n, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t slot = begin; slot < end; ++slot) {
      prepare_row(step, group.first + static_cast<int32_t>(slot), static_cast<int32_t>(slot));
    }
  });
  const int64_t block = step.limits.index_block_keys;
  const int64_t blocks = (longest + block - 1) / block;
  workers.for_range(group.n * blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int32_t slot = static_cast<int32_t>(piece % group.n);
      const int64_t first_key = piece / group.n * block;
      const int64_t end_key = std::min(first_key + block, visible(slot));
      if (first_key < end_key) {
        score_keys(step, layer, group.first + slot, slot, first_key, end_key);
      }
    }
  });
  workers.for_range(group.n, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t slot = begin; slot < end; ++slot) {
      if (visible(slot) <= top_k) continue;
      keep_rows_best(step, group.first + static_cast<int32_t>(slot), static_cast<int32_t>(slot),
                     visible(slot), thread);
    }
  });
}

}  // namespace

void select_entries(Step& step, int32_t layer) {
  const int32_t top_k = step.config.index_top_k;
  int32_t* counts = step.act.selected_count.as<int32_t>();
  for (int32_t row = 0; row < step.batch.n(); ++row) {
    const BatchRow& at = step.batch.rows[row];
    const int64_t visible = visible_entries(at.position);
    count_index_scores(step.config, at.position, at.cache->type(),
                       step.compute.clock[Stage::kIndexer]);
    counts[row] = static_cast<int32_t>(std::min<int64_t>(visible, top_k));
    if (visible > top_k) continue;
    int32_t* selected = step.act.selected.as<int32_t>() + static_cast<int64_t>(row) * top_k;
    for (int32_t e = 0; e < counts[row]; ++e) selected[e] = e;
  }
  const int32_t group_tokens = step.limits.index_group_tokens;
  for (int32_t first = 0; first < step.batch.n(); first += group_tokens) {
    select_for_group(step, layer, {first, std::min(group_tokens, step.batch.n() - first)});
  }
}

}  // namespace hearth
