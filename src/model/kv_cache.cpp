#include "model/kv_cache.h"

namespace hearth {
namespace {

CompressedCache make_compressed(int32_t ratio, int32_t width, bool overlapping, int64_t context,
                                KvType type) {
  CompressedCache cache;
  cache.ratio = ratio;
  cache.width = width;
  cache.lanes = overlapping ? 2 * width : width;
  cache.carry_slots = overlapping ? 2 * ratio : ratio;
  cache.rows = Buffer(static_cast<size_t>(context / ratio) * width * kv_value_bytes(type));
  cache.carry = Buffer(static_cast<size_t>(cache.carry_slots) * 2 * cache.lanes * sizeof(float));
  return cache;
}

}  // namespace

int64_t kv_value_bytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

KvCache::KvCache(const ModelConfig& config, KvType type, int64_t context, const Limits& limits,
                 int32_t layers)
    : type_(type), context_(context), window_row_bytes_(config.head_dim * kv_value_bytes(type)) {
  for (int32_t i = 0; i < layers; ++i) {
    const LayerKind kind = config.kinds[i];
    LayerCache layer;
    // A chunk's rows are written before its first query reads, so the ring holds a window and a
    // chunk.
    layer.window_slots = config.window + limits.chunk_tokens;
    layer.window = Buffer(static_cast<size_t>(layer.window_slots * window_row_bytes_));
    if (kind != LayerKind::kWindow) {
      const bool overlapping = kind == LayerKind::kCsa;
      const int32_t ratio = static_cast<int32_t>(kind);
      layer.entries = make_compressed(ratio, config.head_dim, overlapping, context, type);
      if (overlapping) layer.index = make_compressed(ratio, config.index_dim, true, context, type);
    }
    layers_.push_back(std::move(layer));
  }
}

void KvCache::commit(const Workers& workers, int64_t tokens) {
  for (const LayerCache& layer : layers_) {
    layer.window.commit(workers);
    for (const CompressedCache* cache : {&layer.entries, &layer.index}) {
      if (cache->ratio == 0) continue;
      const int64_t rows = (tokens + cache->ratio - 1) / cache->ratio;
      cache->rows.commit(workers, static_cast<size_t>(rows * cache->width * kv_value_bytes(type_)));
      cache->carry.commit(workers);
    }
  }
}

int64_t KvCache::bytes() const {
  size_t total = 0;
  for (const LayerCache& layer : layers_) {
    total += layer.window.bytes();
    for (const CompressedCache* cache : {&layer.entries, &layer.index}) {
      total += cache->rows.bytes() + cache->carry.bytes();
    }
  }
  return static_cast<int64_t>(total);
}

}  // namespace hearth
