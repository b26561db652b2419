// What a routing trace says to a planner.
#pragma once

#include <string>

#include "offload/plan/recorded_use.h"
#include "offload/sim/routing_trace.h"

namespace hearth {

// Its picks counted, and hit rates of caches that it meets: likely is least recently used; a fixed
// list of the text's most used experts, where it serves less or more, bounds it. Throws an Error
// naming `source` where the trace holds no tokens.
RecordedUse recorded_use(const RoutingTrace& trace, const std::string& source);

}  // namespace hearth
