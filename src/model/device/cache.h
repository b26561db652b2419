// What one sequence remembers, in the memory of a device: what model/kv_cache.h holds in the
// host's.
#pragma once

#include <cstdint>
#include <vector>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"

namespace hearth {

class DeviceCache {
 public:
  // Of the layers from `first_layer` on. Throws Error where it does not fit.
  DeviceCache(Device& device, const ModelConfig& config, KvType type, int64_t context,
              const Limits& limits, int32_t first_layer = 0);

  KvType type() const { return type_; }
  int64_t context() const { return context_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  const GpuSequenceCache& layer(int32_t index) const { return layers_[index]; }

  int64_t position = 0;  // tokens seen; 0 forgets everything, as in KvCache

 private:
  KvType type_;
  int64_t context_;
  DeviceBuffer memory_;
  std::vector<GpuSequenceCache> layers_;
};

// The bytes that a DeviceCache allocates.
int64_t device_cache_bytes(const ModelConfig& config, KvType type, int64_t context,
                           const Limits& limits, int32_t first_layer = 0);

}  // namespace hearth
