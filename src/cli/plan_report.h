// A plan as a person reads it.
#pragma once

#include <string>

#include "offload/plan/plan.h"

namespace hearth::cli {

std::string plan_report(const Plan& plan);

}  // namespace hearth::cli
