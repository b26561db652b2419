// Rates for a machine that nobody measured yet.
#pragma once

#include <string>

#include "offload/machine/machine.h"

namespace hearth {

// Gives a described machine the rates of an ordinary desktop's cores and memory and a middling
// NVMe disk, each marked as assumed: enough to choose portions by, not to predict speed.
void assume_rates(Machine& machine, const std::string& isa);

}  // namespace hearth
