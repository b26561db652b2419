// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hearth {

// "31.30 GiB", "512.0 MiB", "682.0 KiB", "340 bytes": binary units, as memory is sold.
std::string binary_size(int64_t bytes);

// "1 token", "2 tokens".
std::string counted(int64_t count, std::string_view noun);

}  // namespace hearth
