// A model as the planner knows it: bytes and arithmetic of its parts, no weights. Filled from a
// file's header or from the released dimensions (src/model/shape.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/tensor_type.h"
#include "offload/plan/recorded_use.h"

namespace hearth {

// Matrices of one format that are multiplied with the same tokens, taken together.
struct MatrixUse {
  TensorType type;
  int64_t weights;
  int64_t bytes;
};

struct LayerShape {
  int32_t ratio = 0;    // tokens a compressed row stands for: 0 (none), 4 (CSA), 128 (HCA)
  bool hashed = false;  // experts follow from the token alone
  // [experts] of a hashed layer how often its table makes each likely to be used, in any unit;
  // empty: nothing is known of that.
  std::vector<double> likely_use;
  std::vector<MatrixUse> dense;   // read by every token
  std::vector<MatrixUse> expert;  // of one routed expert
  int64_t dense_bytes = 0;   // everything but the routed experts, what is never multiplied included
  int64_t expert_bytes = 0;  // one routed expert

  // Whether a token reads only a few of the compressed rows, which an index chooses.
  bool selects_rows() const { return ratio == 4; }
};

// Cache of one session in one layer.
struct KvBytes {
  int64_t window = 0;   // rings of raw rows
  int64_t entries = 0;  // compressed rows that attention reads
  int64_t index = 0;    // compressed keys that the indexer scans
  int64_t carried = 0;  // state of unfinished windows
  int64_t total() const { return window + entries + index + carried; }
};

// What an engine with a GPU takes beside weights and cache rows, exactly; empty functions where no
// kernels for one are known: it is then estimated. All [layers + 1], by how many layers are on it.
struct GpuNeeds {
  // In VRAM: activations, and what alignment, pages and tables add to weights and caches, with
  // compressed rows as Placement::entries_in_ram has them.
  std::function<std::vector<int64_t>(int64_t context, int32_t chunk_tokens, int32_t sessions,
                                     bool entries_in_ram)>
      vram_bytes;
  // In VRAM that does not hold all experts: those of prompts that are on their way.
  int64_t sent_bytes = 0;
  // In RAM: scratch of the experts that are computed there, and pinned staging.
  std::function<std::vector<int64_t>(int64_t context, int32_t chunk_tokens)> ram_bytes;
};

// Between tensors that are held together in RAM, read along with them.
struct PaddingBytes {
  int64_t without_experts = 0;
  int64_t with_experts = 0;
};

struct ModelShape {
  std::string name;
  int64_t context = 0;  // the longest it was made for
  int32_t dim = 0;
  int32_t vocab = 0;
  int32_t streams = 0;
  int32_t heads = 0;
  int32_t head_dim = 0;
  int32_t window = 0;
  int32_t index_heads = 0;
  int32_t index_dim = 0;
  int32_t index_top_k = 0;
  int32_t experts = 0;  // a layer
  int32_t experts_used = 0;
  int32_t expert_dim = 0;
  int64_t kv_value_bytes = 0;
  std::vector<LayerShape> layers;
  std::vector<MatrixUse> head;  // read once a step
  int64_t head_bytes = 0;       // with its norms and mixes
  int64_t embedding_bytes = 0;
  std::vector<PaddingBytes>
      padding;             // [layers + 1], by how many are on a GPU; empty: there is none
  int64_t slot_bytes = 0;  // that an expert takes where it is read by itself

  // What an engine takes beside the weights, exactly.
  std::function<std::vector<KvBytes>(int64_t context, int32_t chunk_tokens)>
      kv_bytes;  // of a session, [layers]
  std::function<int64_t(int64_t context, int32_t chunk_tokens, int32_t threads)> scratch_bytes;
  GpuNeeds gpu;

  PaddingBytes padding_beside(int32_t gpu_layers) const {
    return padding.empty() ? PaddingBytes{} : padding[gpu_layers];
  }
  int64_t routed_bytes() const;  // all routed experts
  int64_t weight_bytes() const;  // all tensors
  RoutingShape routing() const {
    return {static_cast<int32_t>(layers.size()), experts, experts_used};
  }
  int64_t expert_count() const { return int64_t{experts} * static_cast<int64_t>(layers.size()); }
};

}  // namespace hearth
