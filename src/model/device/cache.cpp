#include "model/device/cache.h"

#include "model/device/slab.h"
#include "model/kv_cache.h"

namespace hearth {
namespace {

struct CacheShape {
  const ModelConfig& config;
  KvType type;
  int64_t context;
  const Limits& limits;
  EntriesIn entries;
};

struct Slabs {
  Slab device, host;
};

// The rows come out of `rows`, the carried state out of the device's memory.
GpuCompressedCache take_compressed(Slab& slab, Slab& rows, const CacheShape& shape, LayerKind kind,
                                   int64_t width) {
  const int64_t ratio = static_cast<int64_t>(kind);
  const int64_t windows = kind == LayerKind::kCsa ? 2 : 1;  // that an entry covers
  const int64_t carry_slots = windows * ratio, lanes = windows * width;
  const int64_t row_bytes = width * kv_value_bytes(shape.type);
  return {rows.take<unsigned char>(shape.context / ratio * row_bytes),
          slab.take<float>(carry_slots * 2 * lanes)};
}

std::vector<GpuSequenceCache> take_layers(Slabs& slabs, const CacheShape& shape) {
  Slab& slab = slabs.device;
  std::vector<GpuSequenceCache> layers;
  const ModelConfig& config = shape.config;
  for (const LayerKind kind : config.kinds) {
    GpuSequenceCache layer{};
    layer.window_slots = config.window + shape.limits.chunk_tokens;
    layer.window =
        slab.take<unsigned char>(layer.window_slots * config.head_dim * kv_value_bytes(shape.type));
    if (kind != LayerKind::kWindow) {
      const bool in_host = kind == LayerKind::kCsa && shape.entries == EntriesIn::kHost;
      Slab& rows = in_host ? slabs.host : slab;
      layer.entries = take_compressed(slab, rows, shape, kind, config.head_dim);
    }
    if (kind == LayerKind::kCsa) {
      layer.index = take_compressed(slab, slab, shape, kind, config.index_dim);
    }
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace

DeviceCache::DeviceCache(Device& device, const ModelConfig& config, KvType type, int64_t context,
                         const Limits& limits, EntriesIn entries)
    : type_(type), context_(context) {
  const DeviceCacheBytes bytes = device_cache_bytes(config, type, context, limits, entries);
  memory_ = allocate_for(device, "a session's cache", bytes.device);
  pinned_ = allocate_pinned_for(device, "a session's compressed rows", bytes.pinned);
  Slabs slabs{Slab(memory_.data()), Slab(pinned_.data())};
  layers_ = take_layers(slabs, {config, type, context, limits, entries});
}

DeviceCacheBytes device_cache_bytes(const ModelConfig& config, KvType type, int64_t context,
                                    const Limits& limits, EntriesIn entries) {
  Slabs counting;
  take_layers(counting, {config, type, context, limits, entries});
  return {counting.device.bytes(), counting.host.bytes()};
}

}  // namespace hearth
