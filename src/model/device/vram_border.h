// The border between caches and routed experts in a device's memory, which moves while the model
// runs: memory for rows that no sequence has reached holds experts until then. What both take
// together never exceeds what they were given.
//
// One thread owns a VramBorder, with everything it was given.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/device/cache.h"
#include "model/device/forward.h"
#include "offload/store/expert_weights.h"
#include "offload/vram/vram_tier.h"

namespace hearth {

class VramBorder {
 public:
  // `bytes`: for both. Of the work that `forward` has enqueued, experts that give way may be part.
  VramBorder(DeviceForward& forward, VramTier& experts, int64_t bytes)
      : forward_(forward), experts_(experts), bytes_(bytes) {}

  // Has experts give way until a cache can take so many bytes. Throws Error where all of them
  // aren't enough.
  void make_room(int64_t bytes);
  // A cache counts between these two, at one address.
  void add(const DeviceCache& cache) { caches_.push_back(&cache); }
  void remove(const DeviceCache& cache) { std::erase(caches_, &cache); }
  // Before a step that takes the cache's sequence so far. Throws Error where the memory is lacking
  // all the same, as another program took it: then the step must not run.
  void reach(DeviceCache& cache, int64_t tokens);
  // Room that no cache takes is for experts again, which come as they are used.
  void refill();

 private:
  int64_t taken() const;

  DeviceForward& forward_;
  VramTier& experts_;
  const int64_t bytes_;
  std::vector<const DeviceCache*> caches_;
};

// `counts` [layers], and as many more experts of layers with stacks in memory as `bytes` hold: one
// of each layer, and so on.
std::vector<int32_t> with_lent_slots(std::span<const LayerExperts> layers, int32_t experts,
                                     std::vector<int32_t> counts, int64_t bytes);

}  // namespace hearth
