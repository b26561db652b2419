#include "device/fake_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/check.h"

namespace hearth {
namespace {

constexpr size_t kAlignment = 16;
constexpr unsigned char kGarbage = 0xff;  // NaN as a float, half float or bfloat16
constexpr unsigned char kAfterEnd = 0xa5;

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// What is mapped: whole pages that end with the allocation, and one that nobody may touch.
struct Mapping {
  explicit Mapping(size_t bytes)
      : usable(round_up(bytes, page_bytes())), before(usable - round_up(bytes, kAlignment)) {}
  size_t usable;
  size_t before;  // bytes between the first page's begin and the allocation
};

}  // namespace

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

void ByteRanges::add(const void* begin, size_t bytes) {
  HEARTH_CHECK(!meets(begin, bytes));
  ranges_[reinterpret_cast<uintptr_t>(begin)] = bytes;
  bytes_ += static_cast<int64_t>(bytes);
}

size_t ByteRanges::remove(const void* begin) {
  const auto found = ranges_.find(reinterpret_cast<uintptr_t>(begin));
  HEARTH_CHECK(found != ranges_.end());
  const size_t bytes = found->second;
  bytes_ -= static_cast<int64_t>(bytes);
  ranges_.erase(found);
  return bytes;
}

bool ByteRanges::holds(const void* begin, size_t bytes) const {
  const uintptr_t at = reinterpret_cast<uintptr_t>(begin);
  auto after = ranges_.upper_bound(at);
  if (after == ranges_.begin()) return false;
  --after;
  return at - after->first <= after->second && bytes <= after->second - (at - after->first);
}

bool ByteRanges::meets(const void* begin, size_t bytes) const {
  const uintptr_t at = reinterpret_cast<uintptr_t>(begin);
  const auto after = ranges_.lower_bound(at);
  if (after != ranges_.end() && after->first - at < bytes) return true;
  return bytes > 0 && after != ranges_.begin() &&
         at - std::prev(after)->first < std::prev(after)->second;
}

FakeMemory::~FakeMemory() { HEARTH_CHECK(live_.empty()); }

void FakeMemory::add(void* begin, size_t bytes) {
  live_.add(begin, bytes);
  most_ = std::max(most_, live_.bytes());
}

void* FakeMemory::allocate(size_t bytes) {
  if (static_cast<int64_t>(bytes) > free_bytes()) return nullptr;
  const Mapping mapping(bytes);
  void* mapped = mmap(nullptr, mapping.usable + page_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  HEARTH_CHECK(mapped != MAP_FAILED);
  unsigned char* pages = static_cast<unsigned char*>(mapped);
  HEARTH_CHECK(mprotect(pages + mapping.usable, page_bytes(), PROT_NONE) == 0);
  unsigned char* begin = pages + mapping.before;
  std::memset(begin, kGarbage, bytes);
  std::memset(begin + bytes, kAfterEnd, mapping.usable - mapping.before - bytes);
  add(begin, bytes);
  return begin;
}

void* FakeMemory::reserve(size_t bytes) {
  HEARTH_CHECK(bytes % page_bytes() == 0);
  // And a page at the end that is never mapped.
  void* begin = mmap(nullptr, bytes + page_bytes(), PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  HEARTH_CHECK(begin != MAP_FAILED);
  return begin;
}

void FakeMemory::release_addresses(void* begin, size_t bytes) {
  HEARTH_CHECK(!live_.meets(begin, bytes));
  HEARTH_CHECK(munmap(begin, bytes + page_bytes()) == 0);
}

bool FakeMemory::map(void* begin, size_t bytes) {
  if (static_cast<int64_t>(bytes) > free_bytes()) return false;
  add(begin, bytes);
  HEARTH_CHECK(mprotect(begin, bytes, PROT_READ | PROT_WRITE) == 0);
  std::memset(begin, kGarbage, bytes);
  return true;
}

void FakeMemory::unmap(void* begin, size_t bytes) {
  HEARTH_CHECK(live_.remove(begin) == bytes);
  HEARTH_CHECK(madvise(begin, bytes, MADV_DONTNEED) == 0);
  HEARTH_CHECK(mprotect(begin, bytes, PROT_NONE) == 0);
}

void FakeMemory::release(void* memory) {
  const size_t bytes = live_.remove(memory);
  const Mapping mapping(bytes);
  unsigned char* begin = static_cast<unsigned char*>(memory);
  for (size_t i = bytes; i < mapping.usable - mapping.before; ++i)
    HEARTH_CHECK(begin[i] == kAfterEnd);
  HEARTH_CHECK(munmap(begin - mapping.before, mapping.usable + page_bytes()) == 0);
}

}  // namespace hearth
