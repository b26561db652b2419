// Tensor names to typed layers: every alias resolved, every shape checked against the config.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_type.h"
#include "format/tensor_dir.h"
#include "model/config.h"
#include "offload/store/expert_weights.h"

namespace hearth {

// Small tensors (norm gains, biases, scales) are expanded to float32 at load, whatever their stored
// type.
using Vector = std::vector<float>;

struct HyperWeights {
  Matrix fn;     // [(2 + N) N, N D]; the head's: [N, N D]
  Vector base;   // [(2 + N) N]; the head's: [N]
  Vector scale;  // [3]; the head's: [1]
};

struct CompressorWeights {
  Matrix value;  // [w, D], w = width for HCA, 2 width for CSA
  Matrix gate;   // [w, D]
  Vector ape;    // [ratio, w]
  Vector norm;   // [width]
};

struct IndexerWeights {
  Matrix query;     // [index_heads * index_dim, q_rank]
  Matrix head_mix;  // [index_heads, D]
  CompressorWeights keys;
};

struct AttentionWeights {
  Vector norm;                   // [D]
  Matrix q_a;                    // [q_rank, D]
  Vector q_a_norm;               // [q_rank]
  Matrix q_b;                    // [heads * head_dim, q_rank]
  Matrix kv;                     // [head_dim, D]
  Vector kv_norm;                // [head_dim]
  Vector sinks;                  // [heads]
  Matrix output_a;               // [groups * output_rank, heads * head_dim / groups]
  Matrix output_b;               // [D, groups * output_rank]
  CompressorWeights compressor;  // CSA and HCA layers
  IndexerWeights indexer;        // CSA layers
};

struct MoeWeights {
  Vector norm;                      // [D]
  Matrix router;                    // [experts, D]
  Vector bias;                      // [experts]; learned routing only
  std::vector<int32_t> hash_table;  // [vocab, experts_used]; hash-routed layers only
  LayerExperts routed;              // stacks: rows = experts * rows of one
  ExpertWeights shared;
};

struct LayerWeights {
  HyperWeights attention_hyper;
  AttentionWeights attention;
  HyperWeights moe_hyper;
  MoeWeights moe;
};

struct ModelWeights {
  Matrix embedding;  // [vocab, D]
  std::vector<LayerWeights> layers;
  HyperWeights head_hyper;
  Vector head_norm;  // [D]
  Matrix output;     // [vocab, D]
};

std::vector<LayerExperts> layer_experts(const ModelWeights& weights);

// Views into the files of `dir`, which must outlive them. Throws one Error listing every missing
// tensor and every wrong shape or value (hash tables that name experts out of range, NaN scales in
// small tensors).
ModelWeights bind_weights(const TensorDir& dir, const ModelConfig& config,
                          const std::string& source);

}  // namespace hearth
