// Which kernel tables this program holds and which of them this CPU can run.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cpu_kernels/kernels.h"

namespace hearth {

// Tables this CPU and operating system can run, fastest first; the last one is "reference", plain
// loops that run everywhere and that every other table is tested against.
std::span<const Kernels* const> usable_kernels();

// The table of that name, the fastest for an empty name. Throws a usage Error that lists what is
// usable.
const Kernels& choose_kernels(std::string_view name);

// The table of that name, also where this CPU can't run it: what it reads may be asked, its
// functions may not be called. Null where the program has none.
const Kernels* find_kernels(std::string_view name);

}  // namespace hearth
