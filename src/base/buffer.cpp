#include "base/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace hearth {

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(fmt::format("cannot reserve {} bytes", bytes), "memory",
                "Choose a smaller context (--ctx)");
  }
  madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: without it only the speed differs
  data_ = static_cast<unsigned char*>(memory);
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

bool Buffer::lock() { return bytes_ == 0 || mlock(data_, bytes_) == 0; }

void Buffer::commit(const Workers& workers, size_t bytes) const {
  constexpr uintptr_t kHugePage = 2 << 20;  // lies on one node, so it is one thread's
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(data_);
  const size_t count = std::min(bytes, bytes_), threads = workers.threads();
  auto border = [&](size_t thread) {
    if (thread == 0) return first;
    const uintptr_t at = first + count / threads * thread + kHugePage - 1;
    return thread == threads ? first + count : std::min(at / kHugePage * kHugePage, first + count);
  };
  workers.on_each_thread([&](int thread) {
    for (uintptr_t at = border(thread); at < border(thread + 1); at += page) {
      *reinterpret_cast<volatile unsigned char*>(at) = 0;
    }
  });
}

int64_t total_bytes(std::span<const Buffer* const> buffers) {
  size_t total = 0;
  for (const Buffer* buffer : buffers) total += buffer->bytes();
  return static_cast<int64_t>(total);
}

void commit(std::span<const Buffer* const> buffers, const Workers& workers) {
  for (const Buffer* buffer : buffers) buffer->commit(workers);
}

}  // namespace hearth
