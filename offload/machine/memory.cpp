#include "offload/machine/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace hearth {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number in a one-line control file, nothing where it is absent or says "max".
std::optional<int64_t> read_number(const std::filesystem::path& path) {
  std::ifstream in(path);
  int64_t value;
  if (in >> value) return value;
  return std::nullopt;
}

// A key of /proc/meminfo, in bytes.
int64_t meminfo_bytes(const std::string& wanted) {
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  int64_t kib;
  while (in >> key >> kib) {
    std::getline(in, unit);
    if (key == wanted) return kib * 1024;
  }
  return kUnlimited;
}

// What a control group and those above it leave. Page cache counts as used there although the
// kernel would give it back, so inactive file pages are added.
int64_t left_in_groups(const std::filesystem::path& root, std::filesystem::path group,
                       const char* limit_file, const char* usage_file, const char* inactive_key) {
  int64_t left = kUnlimited;
  for (;; group = group.parent_path()) {
    const std::filesystem::path folder = root / group.relative_path();
    const auto limit = read_number(folder / limit_file);
    const auto usage = read_number(folder / usage_file);
    if (limit && usage) {
      int64_t reclaimable = 0;
      std::ifstream stat(folder / "memory.stat");
      std::string key;
      int64_t value;
      while (stat >> key >> value) {
        if (key == inactive_key) reclaimable = value;
      }
      left = std::min(left, std::max<int64_t>(*limit - *usage + reclaimable, 0));
    }
    if (!group.has_relative_path()) return left;
  }
}

int64_t left_in_control_groups() {
  int64_t left = kUnlimited;
  std::ifstream in("/proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      left = std::min(left, left_in_groups("/sys/fs/cgroup", group, "memory.max", "memory.current",
                                           "inactive_file"));
    } else if (controllers.find("memory") != std::string::npos) {
      left = std::min(left, left_in_groups("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                                           "memory.usage_in_bytes", "total_inactive_file"));
    }
  }
  return left;
}

}  // namespace

int64_t available_memory_bytes() {
  return std::min(meminfo_bytes("MemAvailable:"), left_in_control_groups());
}

bool has_swap() { return meminfo_bytes("SwapTotal:") > 0; }

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

}  // namespace hearth
