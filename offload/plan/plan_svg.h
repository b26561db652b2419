// A plan as a picture: each tier with what fills it, each layer with where its experts lie.
#pragma once

#include <string>

#include "offload/plan/plan.h"

namespace hearth {

// The text of an SVG file.
std::string plan_svg(const Plan& plan);

}  // namespace hearth
