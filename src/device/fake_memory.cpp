#include "device/fake_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/check.h"

namespace hearth {
namespace {

constexpr size_t kAlignment = 16;
constexpr unsigned char kGarbage = 0xff;  // NaN as a float, half float or bfloat16
constexpr unsigned char kAfterEnd = 0xa5;

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// What is mapped: whole pages that end with the allocation, and one that nobody may touch.
struct Mapping {
  explicit Mapping(size_t bytes)
      : usable(round_up(bytes, page_bytes())), before(usable - round_up(bytes, kAlignment)) {}
  size_t usable;
  size_t before;  // bytes between the first page's begin and the allocation
};

}  // namespace

FakeMemory::~FakeMemory() { HEARTH_CHECK(live_.empty()); }

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
  used_ += static_cast<int64_t>(bytes);
  live_[reinterpret_cast<uintptr_t>(begin)] = bytes;
  return begin;
}

void FakeMemory::release(void* memory) {
  const auto found = live_.find(reinterpret_cast<uintptr_t>(memory));
  HEARTH_CHECK(found != live_.end());
  const size_t bytes = found->second;
  const Mapping mapping(bytes);
  unsigned char* begin = static_cast<unsigned char*>(memory);
  for (size_t i = bytes; i < mapping.usable - mapping.before; ++i)
    HEARTH_CHECK(begin[i] == kAfterEnd);
  HEARTH_CHECK(munmap(begin - mapping.before, mapping.usable + page_bytes()) == 0);
  used_ -= static_cast<int64_t>(bytes);
  live_.erase(found);
}

bool FakeMemory::holds(const void* begin, size_t bytes) const {
  const uintptr_t at = reinterpret_cast<uintptr_t>(begin);
  auto after = live_.upper_bound(at);
  if (after == live_.begin()) return false;
  --after;
  return at - after->first <= after->second && bytes <= after->second - (at - after->first);
}

}  // namespace hearth
