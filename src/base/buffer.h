// Large zeroed memory straight from the kernel: aligned to pages, huge where allowed, committed on
// first touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/workers.h"

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
  // Commits its first `bytes`, or all where it has fewer, which nobody has written to yet: each
  // thread the part that is its own in loops over all of it, so on the thread's NUMA node.
  void commit(const Workers& workers, size_t bytes = SIZE_MAX) const;

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

int64_t total_bytes(std::span<const Buffer* const> buffers);
// All of each.
void commit(std::span<const Buffer* const> buffers, const Workers& workers);

}  // namespace hearth
