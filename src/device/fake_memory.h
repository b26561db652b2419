// The memory of the fake device: counted against a limit, guarded, never readable as something
// sensible before it is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace hearth {

class FakeMemory {
 public:
  explicit FakeMemory(int64_t limit_bytes) : limit_(limit_bytes) {}
  ~FakeMemory();

  // Null where the limit does not allow it.
  void* allocate(size_t bytes);
  void release(void* memory);
  // Whether all of it lies in one live allocation.
  bool holds(const void* begin, size_t bytes) const;

  int64_t limit() const { return limit_; }
  int64_t free_bytes() const { return limit_ - used_; }

 private:
  int64_t limit_;
  int64_t used_ = 0;
  std::map<uintptr_t, size_t> live_;  // begin, bytes
};

}  // namespace hearth
