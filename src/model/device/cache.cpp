#include "model/device/cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "model/device/slab.h"
#include "model/kv_cache.h"

namespace hearth {
namespace {

struct Slabs {
  Slab fixed, rows, host;
  std::vector<DeviceCacheLayout::Rows> taken = {};  // of `rows`, where they begin in it
};

GpuCompressedCache take_compressed(Slabs& slabs, const DeviceCacheShape& shape, LayerKind kind,
                                   int64_t width, bool in_host) {
  const int32_t ratio = static_cast<int32_t>(kind);
  const int64_t windows = kind == LayerKind::kCsa ? 2 : 1;  // that an entry covers
  const int64_t carry_slots = windows * ratio, lanes = windows * width;
  const int64_t row_bytes = width * kv_value_bytes(shape.type);
  if (!in_host) slabs.taken.push_back({slabs.rows.bytes(), row_bytes, ratio});
  Slab& rows = in_host ? slabs.host : slabs.rows;
  return {rows.take<unsigned char>(shape.context / ratio * row_bytes),
          slabs.fixed.take<float>(carry_slots * 2 * lanes)};
}

std::vector<GpuSequenceCache> take_layers(Slabs& slabs, const DeviceCacheShape& shape) {
  const ModelConfig& config = shape.config;
  std::vector<GpuSequenceCache> layers(shape.first_layer);
  for (int32_t i = shape.first_layer; i < config.layers; ++i) {
    const LayerKind kind = config.kinds[i];
    GpuSequenceCache layer{};
    layer.window_slots = config.window + shape.limits.chunk_tokens;
    layer.window = slabs.fixed.take<unsigned char>(layer.window_slots * config.head_dim *
                                                   kv_value_bytes(shape.type));
    const bool is_csa = kind == LayerKind::kCsa;
    if (kind != LayerKind::kWindow) {
      const bool in_host = is_csa && shape.entries == EntriesIn::kHost;
      layer.entries = take_compressed(slabs, shape, kind, config.head_dim, in_host);
    }
    if (is_csa) layer.index = take_compressed(slabs, shape, kind, config.index_dim, false);
    layers.push_back(layer);
  }
  return layers;
}

// The multiple of `step` that so many tokens need, within the context.
int64_t room_of(int64_t tokens, int64_t step, int64_t context) {
  return std::min((tokens + step - 1) / step * step, context);
}

}  // namespace

DeviceCacheLayout::DeviceCacheLayout(const DeviceCacheShape& shape) {
  Slabs counting;
  take_layers(counting, shape);
  fixed_bytes = counting.fixed.bytes();
  bytes = fixed_bytes + counting.rows.bytes();
  pinned_bytes = counting.host.bytes();
  rows = std::move(counting.taken);
  for (Rows& array : rows) array.begin += fixed_bytes;
}

int64_t DeviceCacheLayout::bytes_at(int64_t tokens, size_t page_bytes) const {
  const auto page = static_cast<int64_t>(page_bytes);
  if (page == 0) return bytes;
  int64_t next = (fixed_bytes + page - 1) / page;  // the first page that isn't counted
  int64_t pages = next;
  for (const Rows& array : rows) {
    const int64_t end = array.end(tokens);
    if (end == array.begin) continue;
    const int64_t first = std::max(array.begin / page, next);
    next = std::max((end + page - 1) / page, next);
    pages += std::max<int64_t>(next - first, 0);
  }
  return pages * page;
}

DeviceCache::DeviceCache(Device& device, const DeviceCacheShape& shape, Room room)
    : type_(shape.type),
      context_(shape.context),
      tokens_at_once_(shape.limits.cache_tokens_at_once),
      layout_(shape),
      page_bytes_(device.page_bytes()),
      grows_(room == Room::kAsReached && page_bytes_ > 0),
      room_(grows_ ? 0 : context_) {
  try {
    memory_ = DeviceRange(device, static_cast<size_t>(layout_.bytes));
    memory_.take(0, static_cast<size_t>(grows_ ? layout_.fixed_bytes : layout_.bytes));
  } catch (const Error& error) {
    throw Error(error.what(), "a session's cache", "");
  }
  pinned_ = allocate_pinned_for(device, "a session's compressed rows", layout_.pinned_bytes);
  Slabs slabs{Slab(memory_.data()), Slab(memory_.data() + layout_.fixed_bytes),
              Slab(pinned_.data())};
  layers_ = take_layers(slabs, shape);
}

int64_t DeviceCache::bytes_in_all() const {
  return static_cast<int64_t>(memory_.bytes()) + pinned_bytes();
}

int64_t DeviceCache::room_for(int64_t tokens) const {
  return room_of(tokens, tokens_at_once_, context_);
}

int64_t DeviceCache::bytes_when_reached(int64_t tokens) const {
  return layout_.bytes_at(room_for(tokens), page_bytes_);
}

void DeviceCache::reach(int64_t tokens) {
  HEARTH_CHECK(tokens <= context_);
  if (tokens <= room_) return;
  const int64_t room = room_for(tokens);
  try {
    for (const DeviceCacheLayout::Rows& array : layout_.rows) {
      memory_.take(static_cast<size_t>(array.begin), static_cast<size_t>(array.end(room)));
    }
  } catch (const Error& error) {
    throw Error(error.what(), "a session's cache", "");
  }
  room_ = room;
}

void DeviceCache::clear() {
  position = 0;
  if (!grows_) return;
  memory_.give_back(static_cast<size_t>(layout_.fixed_bytes));
  room_ = 0;
}

int64_t device_cache_bytes(const DeviceCacheShape& shape, size_t page_bytes) {
  return DeviceCacheLayout(shape).bytes_at(shape.context, page_bytes);
}

int64_t first_device_cache_bytes(const DeviceCacheShape& shape, size_t page_bytes) {
  const int64_t room = room_of(1, shape.limits.cache_tokens_at_once, shape.context);
  return DeviceCacheLayout(shape).bytes_at(room, page_bytes);
}

}  // namespace hearth
