// A machine profile as a person reads it.
#pragma once

#include <string>

#include "offload/machine/machine.h"

namespace hearth::cli {

std::string profile_text(const Machine& machine);

}  // namespace hearth::cli
