#include "base/buffer.h"

#include <sys/mman.h>

#include <fmt/format.h>

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

}  // namespace hearth
