// The weights of a model in memory of their own: in huge pages, each NUMA node's share of every
// matrix on that node, and out of reach of what empties the page cache.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "format/tensor_dir.h"
#include "offload/machine/topology.h"

namespace hearth {

class WeightMemory {
 public:
  // Nothing is held.
  WeightMemory() = default;
  // Reads every tensor of `dir`, whose entries then point here; the object must outlive their use.
  // `on_load` is called with bytes done and in all. Throws Error where a file can't be read.
  WeightMemory(TensorDir& dir, const Workers& workers, const Topology& topology,
               const std::function<void(int64_t, int64_t)>& on_load);

  int64_t bytes() const;  // from each file's first tensor to the end of its last

 private:
  std::vector<Buffer> files_;
};

// Bytes of all tensors.
int64_t tensor_bytes(const TensorDir& dir);

}  // namespace hearth
