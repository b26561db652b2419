// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace hearth {

// "31.30 GiB", "512.0 MiB", "340 bytes": binary units, as memory is sold.
std::string binary_size(int64_t bytes);

}  // namespace hearth
