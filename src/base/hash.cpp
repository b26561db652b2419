#include "base/hash.h"

namespace hearth {

void ResultHash::add_bytes(const void* data, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) value_ = (value_ ^ at[i]) * 0x100000001b3u;
}

}  // namespace hearth
