// The weights of a model in memory of their own, all or a part of them: in huge pages, each NUMA
// node's share of every matrix on that node, and out of reach of what empties the page cache.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "format/tensor_dir.h"
#include "offload/machine/topology.h"

namespace hearth {

enum class HeldWeights {
  kAll,
  kAllButExperts,
  kEmbeddingAndExperts,  // the others are a GPU's
  kEmbedding,
};

class WeightMemory {
 public:
  // Nothing is held.
  WeightMemory() = default;
  // Reads the tensors of `dir` that are to be held, whose entries then point here; the object must
  // outlive their use. `on_load` is called with bytes done and in all. Throws Error where a file
  // can't be read.
  WeightMemory(TensorDir& dir, HeldWeights held, const Workers& workers, const Topology& topology,
               const std::function<void(int64_t, int64_t)>& on_load);

  // Interleaves the rows of the routed experts held, where format and shape allow it.
  void interleave_experts(TensorDir& dir, const Workers& workers);

  int64_t bytes() const;
  std::span<const Buffer> runs() const { return runs_; }  // of tensors that follow each other
  // Keeps it from being paged out; false where the system doesn't let this user.
  bool lock();

 private:
  std::vector<Buffer> runs_;
};

// All routed experts of a layer in one tensor, experts last.
bool is_expert_stack(const TensorEntry& tensor);
bool is_embedding(const TensorEntry& tensor);

// Bytes of all tensors.
int64_t tensor_bytes(const TensorDir& dir);
// Bytes that lie between the tensors held, and are read along with them; none of a header without
// files, whose tensors have no places.
int64_t padding_bytes(const TensorDir& dir, HeldWeights held);

}  // namespace hearth
