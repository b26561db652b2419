// What a routing trace says at a glance: how uneven the experts are used, how many of them some
// tokens touch, and what caches of any size would serve; for each layer and for all.
#pragma once

#include <cstdint>
#include <vector>

#include "offload/sim/accesses.h"

namespace hearth {

struct RoutingStats {
  struct Row {
    std::vector<double> fixed;        // [held] share of uses a fixed list of the most used serves
    std::vector<double> lru;          // [held] share of uses an LRU cache serves
    std::vector<double> working_set;  // [windows] distinct experts, on average
  };
  std::vector<double> held;      // share of the experts that are held, 0 to 1
  std::vector<int64_t> windows;  // tokens in a row; those longer than the trace are left out
  Row all;                       // one cache for all layers
  std::vector<Row> layers;       // each layer by itself
};

// The accesses must be of one token a step.
RoutingStats routing_stats(const Accesses& accesses, const std::vector<double>& held,
                           const std::vector<int64_t>& windows);

}  // namespace hearth
