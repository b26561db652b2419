// Which experts lie in VRAM, in RAM and on disk while a text is decoded. Each is in one place, and
// every tier holds as many as the plan gives it.
//
// An expert that was used moves up: into VRAM if its layer is on the GPU, else into RAM. The one
// that VRAM gives up takes the place that becomes free in RAM; what RAM gives up is on disk anyway.
// Nothing here depends on time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "offload/plan/plan.h"
#include "offload/store/cache_policy.h"

namespace hearth {

enum class Tier : uint8_t { kVram, kRam, kDisk };

// Where a plan puts experts at first, [layers * experts]: of each layer those of most `popularity`
// [layers * experts] in the fastest places, or where it is empty in the plan's own order.
std::vector<Tier> planned_tiers(const Plan& plan, int32_t experts,
                                std::span<const double> popularity);

class ExpertTiers {
 public:
  // A policy for each tier of memory, new ones; both null: experts stay where they are.
  ExpertTiers(CacheShape shape, std::vector<Tier> start, std::unique_ptr<CachePolicy> vram,
              std::unique_ptr<CachePolicy> ram);

  Tier of(int32_t key) const { return tiers_[key]; }
  // A layer uses `keys`, distinct ones of its own; layers take turns. `found` [keys]: where they
  // lay. `entered`: those that move into VRAM now, which only a layer on the GPU makes them do.
  void use(int32_t layer, bool on_gpu, std::span<const int32_t> keys, std::vector<Tier>& found,
           std::vector<int32_t>& entered);

 private:
  bool enter_vram(int32_t key);
  void enter_ram(int32_t key);

  std::vector<Tier> tiers_;  // [pairs]
  std::unique_ptr<CachePolicy> vram_, ram_;
};

}  // namespace hearth
