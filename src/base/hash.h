// A 64-bit hash of results, so that two runs can be compared at a glance; it guards nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hearth {

class ResultHash {
 public:
  template <typename T>
  void add(std::span<const T> values) {
    add_bytes(values.data(), values.size_bytes());
  }
  uint64_t value() const { return value_; }

 private:
  void add_bytes(const void* data, size_t bytes);

  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace hearth
