#include "base/hash.h"

#include <algorithm>
#include <cstring>

namespace hearth {

void ResultHash::add_bytes(const void* data, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  while (bytes > 0) {
    uint64_t word = 0;
    const size_t taken = std::min(bytes, sizeof(word));
    std::memcpy(&word, at, taken);
    value_ = (value_ ^ word) * 0x9e3779b97f4a7c15u;
    value_ ^= value_ >> 32;  // so that no bit of a word is lost at the top
    at += taken;
    bytes -= taken;
  }
}

}  // namespace hearth
