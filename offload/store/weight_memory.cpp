#include "offload/store/weight_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace hearth {
namespace {

constexpr int64_t kReadBytes = 4 << 20;
constexpr int64_t kProgressBytes = 256 << 20;

class File {
 public:
  explicit File(const std::filesystem::path& path)
      : path_(path.string()), descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail(errno);
  }
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // 0, or the errno of what went wrong; EIO where the file ends too early.
  int read(uint64_t offset, unsigned char* data, uint64_t bytes) const {
    while (bytes > 0) {
      const ssize_t got = ::pread(descriptor_, data, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno;
      if (got == 0) return EIO;
      offset += static_cast<uint64_t>(got);
      data += got;
      bytes -= static_cast<uint64_t>(got);
    }
    return 0;
  }

  [[noreturn]] void fail(int error_number) const {
    throw Error("cannot be read: " + std::generic_category().message(error_number), path_,
                "Check the disk, and that nothing changes the file meanwhile");
  }

 private:
  const std::string path_;
  const int descriptor_;
};

// Each node's share of every matrix's rows is bound to it, before anything is touched. Stacked
// experts are matrices of their own.
void bind_to_nodes(const TensorEntry& tensor, unsigned char* data, const Topology& topology,
                   int nodes) {
  const uint64_t matrices = tensor.dims.size() > 2 ? static_cast<uint64_t>(tensor.dims[2]) : 1;
  const int64_t rows = tensor.dims.size() > 1 ? tensor.dims[1] : 1;
  const uint64_t matrix_bytes = tensor.bytes / matrices;
  const uint64_t row_size = matrix_bytes / static_cast<uint64_t>(rows);
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (uint64_t m = 0; m < matrices; ++m) {
    for (int node = 0; node < nodes; ++node) {
      auto page_of = [&](int share) {
        const auto row = static_cast<uint64_t>(node_share_begin(rows, share, nodes));
        return reinterpret_cast<uintptr_t>(data + m * matrix_bytes + row * row_size) / page * page;
      };
      const uintptr_t begin = page_of(node), end = page_of(node + 1);
      if (begin < end) topology.bind_memory(reinterpret_cast<void*>(begin), end - begin, node);
    }
  }
}

// The bytes from the first tensor of a file to the end of its last.
struct Extent {
  uint64_t begin = UINT64_MAX;
  uint64_t end = 0;
};

std::vector<Extent> extents(const TensorDir& dir) {
  std::vector<Extent> result(dir.files.size());
  for (const auto& [name, tensor] : dir.tensors) {
    Extent& extent = result[tensor.file];
    extent.begin = std::min(extent.begin, tensor.offset);
    extent.end = std::max(extent.end, tensor.offset + tensor.bytes);
  }
  return result;
}

}  // namespace

WeightMemory::WeightMemory(TensorDir& dir, const Workers& workers, const Topology& topology,
                           const std::function<void(int64_t, int64_t)>& on_load) {
  const std::vector<Extent> parts = extents(dir);
  for (const Extent& part : parts)
    files_.emplace_back(part.begin < part.end ? part.end - part.begin : 0);
  if (workers.nodes() > 1) {
    for (const auto& [name, tensor] : dir.tensors) {
      unsigned char* data = files_[tensor.file].data() + tensor.offset - parts[tensor.file].begin;
      bind_to_nodes(tensor, data, topology, workers.nodes());
    }
  }
  int64_t done = 0, total = 0;
  for (const Extent& part : parts) {
    if (part.begin < part.end) total += static_cast<int64_t>(part.end - part.begin);
  }
  for (size_t f = 0; f < parts.size(); ++f) {
    const File file(dir.files[f].path);
    for (uint64_t at = parts[f].begin; at < parts[f].end;) {
      const auto bytes = std::min<int64_t>(kProgressBytes, static_cast<int64_t>(parts[f].end - at));
      std::atomic<int> error = 0;
      workers.for_range(bytes, kReadBytes, [&](int64_t begin, int64_t end, int) {
        const uint64_t offset = at + static_cast<uint64_t>(begin);
        const int result = file.read(offset, files_[f].data() + offset - parts[f].begin,
                                     static_cast<uint64_t>(end - begin));
        if (result != 0) error = result;
      });
      if (error != 0) file.fail(error);
      at += static_cast<uint64_t>(bytes);
      done += bytes;
      if (on_load) on_load(done, total);
    }
  }
  for (auto& [name, tensor] : dir.tensors) {
    tensor.data = files_[tensor.file].data() + tensor.offset - parts[tensor.file].begin;
  }
}

int64_t WeightMemory::bytes() const {
  size_t total = 0;
  for (const Buffer& file : files_) total += file.bytes();
  return static_cast<int64_t>(total);
}

int64_t tensor_bytes(const TensorDir& dir) {
  uint64_t total = 0;
  for (const auto& [name, tensor] : dir.tensors) total += tensor.bytes;
  return static_cast<int64_t>(total);
}

}  // namespace hearth
