// The dimensions of one DeepSeek-V4 model, read from its file and checked before anything is
// computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/tensor_dir.h"

namespace hearth {

// What this program takes at most.
constexpr int32_t kStreamsMax = 16;    // hyper-connection streams
constexpr int32_t kRopeDimMax = 1024;  // rotating dims of a head

enum class LayerKind : int32_t { kWindow = 0, kCsa = 4, kHca = 128 };  // the compress ratio

// RoPE frequencies of one kind of layer: theta, and YaRN where factor > 1.
struct RopeScaling {
  double theta = 10000;
  double factor = 1;  // 1: no YaRN
  double original_context = 0;
  double beta_fast = 32;
  double beta_slow = 1;
};

struct ModelConfig {
  std::string name;    // general.name, may be empty
  int32_t layers = 0;  // main layers, the MTP block not counted
  int32_t mtp_layers = 0;
  int64_t context = 0;  // longest context the model was made for
  int32_t dim = 0;      // hidden size
  int32_t vocab = 0;

  int32_t heads = 0;
  int32_t head_dim = 0;
  int32_t rope_dim = 0;  // trailing dims of each head that rotate; also in the indexer
  int32_t q_rank = 0;
  int32_t output_groups = 0;
  int32_t output_rank = 0;  // per group
  int32_t window = 0;
  std::vector<LayerKind> kinds;  // [layers]
  RopeScaling rope_plain;        // layers without compression
  RopeScaling rope_compressed;
  float rms_eps = 1e-6f;

  int32_t index_heads = 0;  // 0 where no layer is CSA
  int32_t index_dim = 0;
  int32_t index_top_k = 0;

  int32_t experts = 0;
  int32_t experts_used = 0;
  int32_t expert_dim = 0;   // intermediate size of a routed expert
  int32_t shared_dim = 0;   // intermediate size of the shared expert
  int32_t hash_layers = 0;  // the first layers, routed by token id
  float expert_scale = 1;
  bool expert_norm = true;          // divide the chosen weights by their sum
  std::vector<float> expert_clamp;  // [layers] SwiGLU clamp of the routed experts
  std::vector<float> shared_clamp;  // [layers]

  int32_t streams = 0;  // hyper-connection streams
  int32_t sinkhorn_iterations = 0;
  float hyper_eps = 1e-6f;

  int32_t mixes() const { return (2 + streams) * streams; }  // rows of a hyper-connection matrix
};

// Throws one Error listing every missing, ill-typed or contradictory field. `source` names the file
// in it.
ModelConfig read_config(const TensorDir& dir, const std::string& source);

}  // namespace hearth
