// What one sequence remembers, in the memory of a device: what model/kv_cache.h holds in the
// host's. Its compressed rows have addresses for the whole context, and memory behind them as far
// as the sequence has come, where that is wanted.
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

struct DeviceCacheShape {
  const ModelConfig& config;
  KvType type;
  int64_t context;  // tokens
  const Limits& limits;
  EntriesIn entries = EntriesIn::kDevice;
  int32_t first_layer = 0;  // the layers before it are not the device's
};

// Where the parts of a cache lie in its memory on the device. Windows and carried state come first,
// then the compressed rows, array by array; neighbours may share a page.
struct DeviceCacheLayout {
  struct Rows {
    int64_t begin;  // byte
    int64_t row_bytes;
    int32_t ratio;  // tokens a row

    int64_t end(int64_t tokens) const { return begin + tokens / ratio * row_bytes; }
  };
  explicit DeviceCacheLayout(const DeviceCacheShape& shape);
  // What pages of this size take with rows of so many tokens; all of it where there are none (0).
  int64_t bytes_at(int64_t tokens, size_t page_bytes) const;

  int64_t fixed_bytes = 0;   // before the rows
  int64_t bytes = 0;         // with those of the whole context
  int64_t pinned_bytes = 0;  // of the host
  std::vector<Rows> rows;
};

class DeviceCache {
 public:
  // Memory for the whole context, or for as much of it as reach() was told of.
  enum class Room { kWhole, kAsReached };
  // Throws Error where it does not fit, or where the host's memory can't be pinned.
  DeviceCache(Device& device, const DeviceCacheShape& shape, Room room = Room::kWhole);

  KvType type() const { return type_; }
  int64_t context() const { return context_; }
  const GpuSequenceCache& layer(int32_t index) const { return layers_[index]; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.taken_bytes()); }  // now taken
  int64_t bytes_in_all() const;  // once all of it is reached, the host's with it
  int64_t pinned_bytes() const { return static_cast<int64_t>(pinned_.bytes()); }

  // Tokens that there is memory for; a step takes the sequence no further.
  int64_t room() const { return room_; }
  // bytes() once so many tokens are reached, which are more than there is room for.
  int64_t bytes_when_reached(int64_t tokens) const;
  // Throws Error where memory is lacking; what was there stays as it was.
  void reach(int64_t tokens);
  // Forgets everything, and gives back what reach() took.
  void clear();

  int64_t position = 0;  // tokens seen; 0 forgets everything, as in KvCache

 private:
  int64_t room_for(int64_t tokens) const;

  KvType type_;
  int64_t context_;
  int64_t tokens_at_once_;  // that reach() takes memory for
  DeviceCacheLayout layout_;
  size_t page_bytes_;
  bool grows_;
  int64_t room_;
  DeviceRange memory_;
  PinnedBuffer pinned_;
  std::vector<GpuSequenceCache> layers_;
};

// What a DeviceCache takes on the device in all, and at first where it grows: with room for its
// first tokens.
int64_t device_cache_bytes(const DeviceCacheShape& shape, size_t page_bytes);
int64_t first_device_cache_bytes(const DeviceCacheShape& shape, size_t page_bytes);

}  // namespace hearth
