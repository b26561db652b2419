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
  int32_t first_layer;
};

GpuCompressedCache take_compressed(Slab& slab, const CacheShape& shape, LayerKind kind,
                                   int64_t width) {
  const int64_t ratio = static_cast<int64_t>(kind);
  const int64_t windows = kind == LayerKind::kCsa ? 2 : 1;  // that an entry covers
  const int64_t carry_slots = windows * ratio, lanes = windows * width;
  const int64_t row_bytes = width * kv_value_bytes(shape.type);
  return {slab.take<unsigned char>(shape.context / ratio * row_bytes),
          slab.take<float>(carry_slots * 2 * lanes)};
}

std::vector<GpuSequenceCache> take_layers(Slab& slab, const CacheShape& shape) {
  const ModelConfig& config = shape.config;
  std::vector<GpuSequenceCache> layers(shape.first_layer);
  for (int32_t i = shape.first_layer; i < config.layers; ++i) {
    const LayerKind kind = config.kinds[i];
    GpuSequenceCache layer{};
    layer.window_slots = config.window + shape.limits.chunk_tokens;
    layer.window =
        slab.take<unsigned char>(layer.window_slots * config.head_dim * kv_value_bytes(shape.type));
    if (kind != LayerKind::kWindow) {
      layer.entries = take_compressed(slab, shape, kind, config.head_dim);
    }
    if (kind == LayerKind::kCsa) {
      layer.index = take_compressed(slab, shape, kind, config.index_dim);
    }
    layers.push_back(layer);
  }
  return layers;
}

}  // namespace

DeviceCache::DeviceCache(Device& device, const ModelConfig& config, KvType type, int64_t context,
                         const Limits& limits, int32_t first_layer)
    : type_(type),
      context_(context),
      memory_(allocate_for(device, "a session's cache",
                           device_cache_bytes(config, type, context, limits, first_layer))) {
  Slab slab(memory_.data());
  layers_ = take_layers(slab, {config, type, context, limits, first_layer});
}

int64_t device_cache_bytes(const ModelConfig& config, KvType type, int64_t context,
                           const Limits& limits, int32_t first_layer) {
  Slab counting;
  take_layers(counting, {config, type, context, limits, first_layer});
  return counting.bytes();
}

}  // namespace hearth
