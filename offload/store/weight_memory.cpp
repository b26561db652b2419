#include "offload/store/weight_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "base/error.h"
#include "format/interleave.h"

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
                   const NodeShares& shares) {
  const uint64_t matrices = tensor.dims.size() > 2 ? static_cast<uint64_t>(tensor.dims[2]) : 1;
  const int64_t rows = tensor.dims.size() > 1 ? tensor.dims[1] : 1;
  const uint64_t matrix_bytes = tensor.bytes / matrices;
  const uint64_t row_size = matrix_bytes / static_cast<uint64_t>(rows);
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (uint64_t m = 0; m < matrices; ++m) {
    for (int node = 0; node < shares.nodes(); ++node) {
      auto page_of = [&](int share) {
        const auto row = static_cast<uint64_t>(shares.begin(rows, share));
        return reinterpret_cast<uintptr_t>(data + m * matrix_bytes + row * row_size) / page * page;
      };
      const uintptr_t begin = page_of(node), end = page_of(node + 1);
      if (begin < end) topology.bind_memory(reinterpret_cast<void*>(begin), end - begin, node);
    }
  }
}

// Tensors that follow each other in a file, with what lies between them.
struct Run {
  int file;
  uint64_t begin;
  uint64_t end;
  std::vector<const TensorEntry*> tensors;
};

bool is_held(const TensorEntry& tensor, const HeldWeights& held) {
  if (is_expert_stack(tensor)) return held.experts;
  if (is_embedding(tensor) || held.dense_layers == kAllLayers) return true;
  const int32_t layer = layer_of(tensor);
  return layer >= 0 && layer < held.dense_layers;
}

std::vector<const TensorEntry*> in_file_order(const TensorDir& dir) {
  std::vector<const TensorEntry*> order;
  for (const auto& [name, tensor] : dir.tensors) order.push_back(&tensor);
  std::ranges::sort(order, {}, [](const TensorEntry* t) { return std::pair(t->file, t->offset); });
  return order;
}

// A tensor that isn't held ends a run.
std::vector<Run> runs_of(const std::vector<const TensorEntry*>& order, const HeldWeights& held) {
  std::vector<Run> runs;
  bool goes_on = false;
  for (const TensorEntry* tensor : order) {
    if (!is_held(*tensor, held)) {
      goes_on = false;
      continue;
    }
    if (!goes_on || runs.back().file != tensor->file) {
      runs.push_back({tensor->file, tensor->offset, tensor->offset, {}});
    }
    goes_on = true;
    runs.back().end = std::max(runs.back().end, tensor->offset + tensor->bytes);
    runs.back().tensors.push_back(tensor);
  }
  return runs;
}

}  // namespace

WeightMemory::WeightMemory(TensorDir& dir, HeldWeights held, const Workers& workers,
                           const Topology& topology,
                           const std::function<void(int64_t, int64_t)>& on_load) {
  const std::vector<Run> runs = runs_of(in_file_order(dir), held);
  int64_t done = 0, total = 0;
  for (const Run& run : runs) {
    Buffer& memory = runs_.emplace_back(run.end - run.begin);
    total += static_cast<int64_t>(memory.bytes());
    for (const TensorEntry* tensor : run.tensors) {
      if (workers.nodes() == 1) break;
      unsigned char* data = memory.data() + tensor->offset - run.begin;
      bind_to_nodes(*tensor, data, topology, workers.shares());
    }
  }
  for (size_t r = 0; r < runs.size(); ++r) {
    const Run& run = runs[r];
    const File file(dir.files[run.file].path);
    for (uint64_t at = run.begin; at < run.end;) {
      const auto bytes = std::min<int64_t>(kProgressBytes, static_cast<int64_t>(run.end - at));
      std::atomic<int> error = 0;
      workers.for_range(bytes, kReadBytes, [&](int64_t begin, int64_t end, int) {
        const uint64_t offset = at + static_cast<uint64_t>(begin);
        const int result = file.read(offset, runs_[r].data() + offset - run.begin,
                                     static_cast<uint64_t>(end - begin));
        if (result != 0) error = result;
      });
      if (error != 0) file.fail(error);
      at += static_cast<uint64_t>(bytes);
      done += bytes;
      if (on_load) on_load(done, total);
    }
    for (const TensorEntry* tensor : run.tensors) {
      dir.tensors.at(tensor->name).data = runs_[r].data() + tensor->offset - run.begin;
    }
  }
}

void WeightMemory::interleave_experts(TensorDir& dir, const Workers& workers, int32_t layers) {
  for (auto& [name, tensor] : dir.tensors) {
    const auto run = std::ranges::find_if(runs_, [&](const Buffer& memory) {
      return memory.data() <= tensor.data && tensor.data < memory.data() + memory.bytes();
    });
    if (run == runs_.end() || !is_expert_stack(tensor) || layer_of(tensor) >= layers) continue;
    const int64_t cols = tensor.dims[0];
    if (!can_interleave(tensor.type, tensor.dims[1], cols)) continue;
    unsigned char* data = run->data() + (tensor.data - run->data());
    const int64_t group_bytes = kInterleavedRows * row_bytes(tensor.type, cols);
    const int64_t groups = static_cast<int64_t>(tensor.bytes) / group_bytes;
    workers.for_range(groups, kReadBytes / group_bytes + 1, [&](int64_t begin, int64_t end, int) {
      std::vector<unsigned char> scratch(group_bytes);
      for (int64_t group = begin; group < end; ++group) {
        interleave_rows(tensor.type, cols, data + group * group_bytes, scratch.data());
      }
    });
    tensor.interleaved = true;
  }
}

int64_t WeightMemory::bytes() const {
  size_t total = 0;
  for (const Buffer& run : runs_) total += run.bytes();
  return static_cast<int64_t>(total);
}

bool WeightMemory::lock() {
  return std::ranges::all_of(runs_, [](Buffer& run) { return run.lock(); });
}

bool is_expert_stack(const TensorEntry& tensor) { return tensor.dims.size() == 3; }
bool is_embedding(const TensorEntry& tensor) { return tensor.name.starts_with("token_embd"); }

int32_t layer_of(const TensorEntry& tensor) {
  const std::string& name = tensor.name;
  int32_t layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

int64_t tensor_bytes(const TensorDir& dir) {
  uint64_t total = 0;
  for (const auto& [name, tensor] : dir.tensors) total += tensor.bytes;
  return static_cast<int64_t>(total);
}

std::vector<int64_t> padding_bytes(const TensorDir& dir, std::span<const HeldWeights> choices) {
  std::vector<int64_t> result(choices.size(), 0);
  if (dir.files.empty()) return result;
  const std::vector<const TensorEntry*> order = in_file_order(dir);
  for (size_t i = 0; i < choices.size(); ++i) {
    for (const Run& run : runs_of(order, choices[i])) {
      result[i] += static_cast<int64_t>(run.end - run.begin);
      for (const TensorEntry* tensor : run.tensors) {
        result[i] -= static_cast<int64_t>(tensor->bytes);
      }
    }
  }
  return result;
}

}  // namespace hearth
