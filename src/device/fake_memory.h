// The memory of the fake device: counted against a limit, guarded, never readable as something
// sensible before it is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace hearth {

size_t page_bytes();

// Ranges of addresses that do not overlap.
class ByteRanges {
 public:
  void add(const void* begin, size_t bytes);
  // Its bytes; one that begins there must be known.
  size_t remove(const void* begin);
  // Whether all of it lies in one range.
  bool holds(const void* begin, size_t bytes) const;
  // Whether any of it lies in a range.
  bool meets(const void* begin, size_t bytes) const;
  int64_t bytes() const { return bytes_; }
  bool empty() const { return ranges_.empty(); }

 private:
  int64_t bytes_ = 0;
  std::map<uintptr_t, size_t> ranges_;  // begin, bytes
};

class FakeMemory {
 public:
  explicit FakeMemory(int64_t limit_bytes) : limit_(limit_bytes) {}
  ~FakeMemory();

  // Null where the limit does not allow it.
  void* allocate(size_t bytes);
  void release(void* memory);
  // Addresses of whole pages that nobody may touch before they are mapped, which counts as memory.
  // Not mapped where the limit does not allow it. What is unmapped was mapped at once.
  void* reserve(size_t bytes);
  void release_addresses(void* begin, size_t bytes);
  bool map(void* begin, size_t bytes);
  void unmap(void* begin, size_t bytes);
  const ByteRanges& live() const { return live_; }
  int64_t limit() const { return limit_; }
  int64_t free_bytes() const { return limit_ - live_.bytes(); }
  int64_t most_bytes() const { return most_; }  // that were taken at once

 private:
  void add(void* begin, size_t bytes);

  int64_t limit_;
  int64_t most_ = 0;
  ByteRanges live_;
};

}  // namespace hearth
