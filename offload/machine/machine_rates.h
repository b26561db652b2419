// All rates of a profile at once.
#pragma once

#include <span>

#include "offload/machine/machine.h"

namespace hearth {

// To four digits: measuring is worth no more, and a person reads them easier.
void round_rates(Machine& machine);

// The first, with the median of each rate. All must have the same fields, and there must be one.
Machine median_of(std::span<const Machine> machines);

}  // namespace hearth
