// The weights of a model in memory of their own, all or a part of them: in huge pages, each NUMA
// node's share of every matrix on that node, and out of reach of what empties the page cache.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "format/tensor_dir.h"
#include "offload/machine/topology.h"

namespace hearth {

constexpr int32_t kAllLayers = std::numeric_limits<int32_t>::max();

// The embedding, and of the others these; what is missing is a GPU's or stays in its files.
struct HeldWeights {
  // Of so many layers, the first ones, all but the routed experts; with kAllLayers also what
  // belongs to no layer.
  int32_t dense_layers = kAllLayers;
  bool experts = true;  // of all layers
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

  // Interleaves the rows of the routed experts held, of so many layers, the first ones, where
  // format and shape allow it.
  void interleave_experts(TensorDir& dir, const Workers& workers, int32_t layers = kAllLayers);

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
// The layer a tensor belongs to, -1 for those of none.
int32_t layer_of(const TensorEntry& tensor);

// Bytes of all tensors.
int64_t tensor_bytes(const TensorDir& dir);
// For each choice the bytes that lie between the tensors held, and are read along with them; none
// of a header without files, whose tensors have no places.
std::vector<int64_t> padding_bytes(const TensorDir& dir, std::span<const HeldWeights> choices);

}  // namespace hearth
