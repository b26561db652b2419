#include "offload/sim/accesses.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace hearth {

Accesses accesses_of(const RoutingTrace& trace, int64_t block_tokens) {
  HEARTH_CHECK(block_tokens >= 1);
  Accesses accesses;
  accesses.layers = trace.layers;
  accesses.experts = trace.experts;
  accesses.keys.reserve(trace.picks.size());
  std::vector<int64_t> seen(trace.pairs(), -1);  // the last step that had the key
  int64_t first = 0;
  for (const int64_t tokens : trace.sequences) {
    const int64_t last = first + tokens;
    for (int64_t block = first; block < last; block += block_tokens) {
      const int64_t end = std::min(block + block_tokens, last);
      for (int32_t layer = 0; layer < trace.layers; ++layer) {
        const int64_t begin = std::ssize(accesses.keys);
        for (int64_t token = block; token < end; ++token) {
          for (const uint16_t expert : trace.at(token, layer)) {
            const int32_t key = layer * trace.experts + expert;
            if (seen[key] == accesses.steps()) continue;
            seen[key] = accesses.steps();
            accesses.keys.push_back(key);
          }
        }
        const auto size = static_cast<int32_t>(std::ssize(accesses.keys) - begin);
        accesses.step_keys_max = std::max(accesses.step_keys_max, size);
        accesses.ends.push_back(std::ssize(accesses.keys));
        accesses.layer.push_back(layer);
      }
    }
    first = last;
  }
  return accesses;
}

Accesses only_layer(const Accesses& accesses, int32_t layer) {
  Accesses one;
  one.layers = 1;
  one.experts = accesses.experts;
  for (int64_t s = 0; s < accesses.steps(); ++s) {
    if (accesses.layer[s] != layer) continue;
    const std::span<const int32_t> keys = accesses.step(s);
    for (const int32_t key : keys) one.keys.push_back(key - layer * accesses.experts);
    one.step_keys_max = std::max(one.step_keys_max, static_cast<int32_t>(std::ssize(keys)));
    one.ends.push_back(std::ssize(one.keys));
    one.layer.push_back(0);
  }
  return one;
}

int64_t slots_of_share(const Accesses& accesses, double share) {
  return std::clamp<int64_t>(std::llround(share * accesses.pairs()), 0, accesses.pairs());
}

double hit_rate(const Accesses& accesses, int64_t hits) {
  if (accesses.keys.empty()) return 0;
  return static_cast<double>(hits) / static_cast<double>(accesses.keys.size());
}

}  // namespace hearth
