// How many picks a cache of experts serves, by policy and size.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/sim/accesses.h"
#include "offload/store/cache_policy.h"

namespace hearth {

// Hits of a cache of `slots` experts that holds `loaded` at first, run by `policy` over all
// accesses. Every expert a step needs is in the cache when the step is done; slots must hold the
// largest step, and what is loaded.
int64_t count_hits(const Accesses& accesses, CachePolicy& policy, int64_t slots,
                   std::span<const int32_t> loaded = {});

// Hits by slots, [pairs + 1]: what a cache of that many slots serves. Entries below the largest
// step are what an unpinned stack would serve.
using HitCounts = std::vector<int64_t>;

// LRU at all sizes in one pass, by stack distances.
HitCounts lru_curve(const Accesses& accesses);

// Uses of every key.
std::vector<int64_t> count_uses(const Accesses& accesses);
// A fixed list, always held: the first `slots` keys by descending `popularity` [pairs].
template <typename T>
HitCounts static_curve(const Accesses& accesses, const std::vector<T>& popularity);

// Distinct keys in a window of tokens, averaged over all windows that don't overlap: the working
// set.
double mean_working_set(const Accesses& accesses, int64_t window_passes);

}  // namespace hearth
