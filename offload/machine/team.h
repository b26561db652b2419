// The team of compute threads of this machine.
#pragma once

#include "base/workers.h"
#include "offload/machine/topology.h"

namespace hearth {

// How many threads `--threads wanted` means; 0: one a physical core. Throws a usage Error.
int choose_threads(int wanted);

// One thread a core, each on its own, spread over the NUMA nodes; a team that leaves cores free, or
// is larger, runs wherever there is room.
Workers make_team(int threads, const Topology& topology);

}  // namespace hearth
