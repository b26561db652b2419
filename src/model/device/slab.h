// One allocation on the device, cut into places. The code that takes the places runs twice: without
// memory it only counts, so what is known beforehand is what is taken.
#pragma once

#include <cstdint>

#include "device/device.h"

namespace hearth {

class Slab {
 public:
  Slab() = default;  // counts
  explicit Slab(unsigned char* memory) : memory_(memory) {}

  // The next place, at a multiple of 16 bytes and of whole 16 bytes; null while counting.
  template <typename T>
  T* take(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
    return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + at);
  }
  int64_t bytes() const { return bytes_; }

 private:
  unsigned char* memory_ = nullptr;
  int64_t bytes_ = 0;
};

// As Device::allocate, with an Error that names what the memory is for.
DeviceBuffer allocate_for(Device& device, const char* what, int64_t bytes);
PinnedBuffer allocate_pinned_for(Device& device, const char* what, int64_t bytes);

}  // namespace hearth
