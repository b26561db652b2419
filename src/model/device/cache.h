// What one sequence remembers, in the memory of a device: what model/kv_cache.h holds in the
// host's.
#pragma once

#include <cstdint>
#include <vector>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"

namespace hearth {

// Where the compressed rows of CSA layers lie, of which a token reads a few: in the device's
// memory, or pinned in the host's, where kernels read and write them over the link at the same
// addresses.
enum class EntriesIn { kDevice, kHost };

// What a DeviceCache takes in all.
struct DeviceCacheBytes {
  int64_t device;
  int64_t pinned;  // of the host
};
DeviceCacheBytes device_cache_bytes(const ModelConfig& config, KvType type, int64_t context,
                                    const Limits& limits, EntriesIn entries = EntriesIn::kDevice);

class DeviceCache {
 public:
  // Throws Error where it does not fit, or where the host's memory can't be pinned.
  DeviceCache(Device& device, const ModelConfig& config, KvType type, int64_t context,
              const Limits& limits, EntriesIn entries = EntriesIn::kDevice);

  KvType type() const { return type_; }
  int64_t context() const { return context_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  int64_t pinned_bytes() const { return static_cast<int64_t>(pinned_.bytes()); }
  const GpuSequenceCache& layer(int32_t index) const { return layers_[index]; }

  int64_t position = 0;  // tokens seen; 0 forgets everything, as in KvCache

 private:
  KvType type_;
  int64_t context_;
  DeviceBuffer memory_;
  PinnedBuffer pinned_;
  std::vector<GpuSequenceCache> layers_;
};

}  // namespace hearth
