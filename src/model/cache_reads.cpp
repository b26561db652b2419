#include "model/cache_reads.h"

#include <algorithm>

#include "model/kv_cache.h"

namespace hearth {
namespace {

int64_t visible_entries(LayerKind kind, int64_t position) {
  return kind == LayerKind::kWindow ? 0 : (position + 1) / static_cast<int64_t>(kind);
}

}  // namespace

void count_attention(const ModelConfig& config, LayerKind kind, int64_t position, KvType type,
                     StageTotals& totals) {
  int64_t entries = visible_entries(kind, position);
  if (kind == LayerKind::kCsa) entries = std::min<int64_t>(entries, config.index_top_k);
  const int64_t rows = std::min<int64_t>(position + 1, config.window) + entries;
  totals.bytes += rows * config.head_dim * kv_value_bytes(type);
  totals.flops += 4 * rows * config.heads * config.head_dim;
}

void count_index_scores(const ModelConfig& config, int64_t position, KvType type,
                        StageTotals& totals) {
  const int64_t visible = visible_entries(LayerKind::kCsa, position);
  if (visible <= config.index_top_k) return;
  totals.bytes += visible * config.index_dim * kv_value_bytes(type);
  totals.flops += 2 * visible * config.index_dim * config.index_heads;
}

}  // namespace hearth
