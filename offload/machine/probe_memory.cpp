#include "offload/machine/probe_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "offload/machine/memory.h"

namespace hearth {
namespace {

constexpr int64_t kPerNodeBytes = int64_t{2} << 30;
constexpr int64_t kLeastBytes = int64_t{64} << 20;
constexpr int64_t kUnitBytes = 64 << 10;
constexpr int64_t kFillBytes = 4 << 20;  // a thread fills at a time

// SplitMix64 of the index; six random bits in each byte, from 0x20 to 0x5f.
uint64_t word_at(uint64_t index) {
  uint64_t x = (index + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return ((x ^ (x >> 31)) & 0x3f3f3f3f3f3f3f3f) + 0x2020202020202020;
}

}  // namespace

int64_t ProbeMemory::default_bytes(int nodes) {
  const int64_t free = available_memory_bytes();
  const int64_t bytes = std::min(kPerNodeBytes * nodes, free / 4);
  if (bytes < kLeastBytes * nodes) {
    throw Error(fmt::format("{} MiB of free memory are too little to measure with", free >> 20),
                "memory",
                fmt::format("Free some: {} MiB are needed", (4 * kLeastBytes * nodes) >> 20));
  }
  return bytes;
}

ProbeMemory::ProbeMemory(const Workers& workers, const Topology& topology, int64_t bytes)
    : nodes_(workers.nodes()),
      node_bytes_(bytes / nodes_ / kUnitBytes * kUnitBytes),
      memory_(static_cast<size_t>(node_bytes_ * nodes_)) {
  if (nodes_ > 1) {
    for (int node = 0; node < nodes_; ++node) {
      topology.bind_memory(of_node(node).data(), of_node(node).size(), node);
    }
  }
  uint64_t* words = memory_.as<uint64_t>();
  workers.for_range(node_bytes_ * nodes_, kFillBytes, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin / 8; i < end / 8; ++i) words[i] = word_at(static_cast<uint64_t>(i));
  });
}

}  // namespace hearth
