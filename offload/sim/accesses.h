// A trace as a cache sees it: steps, each the distinct experts that one layer needs at once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/sim/routing_trace.h"

namespace hearth {

// Experts of all layers in one row of numbers: key = layer * experts + expert.
struct Accesses {
  int32_t layers = 0;
  int32_t experts = 0;
  int32_t step_keys_max = 0;   // of the largest step: the least slots a cache needs
  std::vector<int32_t> keys;   // step after step, distinct within a step
  std::vector<int64_t> ends;   // [steps] where a step's keys end
  std::vector<int32_t> layer;  // [steps]

  int32_t pairs() const { return layers * experts; }
  int64_t steps() const { return std::ssize(ends); }
  std::span<const int32_t> step(int64_t s) const {
    const int64_t begin = s == 0 ? 0 : ends[s - 1];
    return {keys.data() + begin, static_cast<size_t>(ends[s] - begin)};
  }
};

// Steps of `block_tokens` tokens each (1: decode; more: prefill in chunks, drafts), fewer at the
// end of a sequence.
Accesses accesses_of(const RoutingTrace& trace, int64_t block_tokens = 1);

// The steps of one layer, as if the model had no other.
Accesses only_layer(const Accesses& accesses, int32_t layer);

// Slots that hold this share of all experts, rounded, 0 for 0 and all for 1.
int64_t slots_of_share(const Accesses& accesses, double share);
// Hits of all uses; 0 where there are none.
double hit_rate(const Accesses& accesses, int64_t hits);

}  // namespace hearth
