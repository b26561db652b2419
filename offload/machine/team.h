// The team of compute threads of this machine.
#pragma once

#include "base/workers.h"
#include "offload/machine/topology.h"

namespace hearth {

// How many threads `--threads wanted` means; 0: one a physical core. Throws a usage Error.
int choose_threads(int wanted);

// So many threads on each node, or of one node's number all of them wherever there is room. As many
// as there are cores have each one of their own; fewer share those of their node, so that two
// programs don't meet on the same cores. The nodes must be one, or those of the topology.
Workers make_team(const NodeShares& shares, const Topology& topology);
// One thread a core, spread over the nodes; a team that leaves cores free, or is larger, runs
// wherever there is room.
Workers make_team(int threads, const Topology& topology);

}  // namespace hearth
