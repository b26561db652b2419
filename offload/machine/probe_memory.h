// Memory to measure with: far more than caches hold, every node's share on the node, filled with
// random bytes that make harmless weights in every format: read as a scale or as a number, no two
// or four of them are infinite, a NaN or too small to be normal.
#pragma once

#include <cstdint>
#include <span>

#include "base/buffer.h"
#include "base/workers.h"
#include "offload/machine/topology.h"

namespace hearth {

class ProbeMemory {
 public:
  // 2 GiB a node, but never more than a quarter of what is available. Throws Error where that is
  // too little to measure with.
  static int64_t default_bytes(int nodes);

  // `bytes`: of all nodes together.
  ProbeMemory(const Workers& workers, const Topology& topology, int64_t bytes);

  int nodes() const { return nodes_; }
  // The share of a node, a multiple of 64 KiB.
  std::span<unsigned char> of_node(int node) const {
    return {memory_.data() + node * node_bytes_, static_cast<size_t>(node_bytes_)};
  }

 private:
  int nodes_;
  int64_t node_bytes_;
  Buffer memory_;
};

}  // namespace hearth
