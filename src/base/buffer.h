// Large zeroed memory straight from the kernel: aligned to pages, huge where allowed, committed on
// first touch.
#pragma once

#include <cstddef>
#include <utility>

namespace hearth {

class Buffer {
 public:
  Buffer() = default;
  // Throws Error when the address space is refused.
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  // Commits all of it and keeps it from being paged out; false where the system doesn't let this
  // user.
  bool lock();

  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  unsigned char* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace hearth
