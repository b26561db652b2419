#include "model/synth_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "model/tensor_names.h"

namespace hearth {
namespace {

constexpr int32_t kLayersMax = 1024;  // as read_config
constexpr int32_t kExpertsMax = 4096;
constexpr double kSkewMax = 4;
constexpr float kGainSpread = 0.1f;

struct Formats {
  TensorType gate_up;
  TensorType down;
  TensorType dense;
};

TensorType parse_format(const SynthOptions& options, const std::string& name, const char* option) {
  if (name == "fp8" && options.out.empty()) return TensorType::kF8_E4M3;
  const TypeInfo* info = find_type_by_name(name.c_str());
  if (info != nullptr && info->type != TensorType::kI32) return info->type;
  throw usage_error(
      fmt::format("'{}' is no weight format of GGUF files", name), option,
      "Choose mxfp4, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq2_xxs, "
      "iq2_xs, iq2_s, iq3_xxs, iq3_s, iq4_nl, iq4_xs, f16, bf16 or f32");
}

Formats parse_formats(const SynthOptions& options) {
  const TensorType dense = parse_format(options, options.dense, "--dense");
  if (options.quant == "q2") return {TensorType::kIQ2_XXS, TensorType::kQ2_K, dense};
  const TensorType routed = parse_format(options, options.quant, "--quant");
  return {routed, routed, dense};
}

SynthShape asked_shape(const SynthOptions& options) {
  SynthShape shape = options.shape;
  if (options.layers != 0) shape.layers = options.layers;
  if (options.experts != 0) shape.experts = options.experts;
  if (shape.layers < 1 || shape.layers > kLayersMax) {
    throw usage_error(fmt::format("{} layers make no model", shape.layers), "--layers",
                      fmt::format("Choose 1 to {}", kLayersMax));
  }
  if (shape.experts < shape.experts_used || shape.experts > kExpertsMax) {
    throw usage_error(fmt::format("{} experts a layer make no model of which a token uses {}",
                                  shape.experts, shape.experts_used),
                      "--experts", fmt::format("Choose {} to {}", shape.experts_used, kExpertsMax));
  }
  if (!(options.skew >= 0 && options.skew <= kSkewMax)) {
    throw usage_error(fmt::format("a skew of {} is out of range", options.skew), "--skew",
                      fmt::format("Choose 0 to {}", kSkewMax));
  }
  return shape;
}

// How wide exp_probs_b must be drawn so that the logarithm of popularity varies by skew / 2. A
// router logit z is about N(0, 1), its score sqrt(softplus(z)); an expert is picked where score +
// bias exceeds the threshold that used / experts of all scores exceed: d log P / d bias = density /
// probability / (d score / d z) there.
double bias_spread(const SynthShape& shape, double skew) {
  const double picked = std::min(0.5, static_cast<double>(shape.experts_used) / shape.experts);
  double least = 0, most = 40;  // the normal distribution's quantile, by bisection
  for (int i = 0; i < 60; ++i) {
    const double middle = (least + most) / 2;
    (0.5 * std::erfc(middle / std::numbers::sqrt2) > picked ? least : most) = middle;
  }
  const double z = least;
  const double density = std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
  const double score = std::sqrt(std::log1p(std::exp(z)));
  const double slope = 1 / (1 + std::exp(-z)) / (2 * score);
  return skew / 2 * picked * slope / density;
}

class TensorList {
 public:
  TensorList(const SynthOptions& options, const SynthShape& shape, const Formats& formats)
      : options_(options), shape_(shape), formats_(formats) {}

  std::vector<SynthTensor> build() {
    matrix("token_embd", TensorType::kQ8_0, shape_.dim, shape_.vocab).content =
        SynthContent::kEmbedding;
    vector("output_norm.weight", shape_.dim, 1, kGainSpread);
    matrix("output", TensorType::kQ8_0, shape_.dim, shape_.vocab);
    hyper("output_hc", shape_.streams, 1);
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      prefix_ = block_tensor_name(layer, "");
      block(layer);
    }
    return std::move(tensors_);
  }

 private:
  void block(int32_t layer) {
    const int32_t mixes = (2 + shape_.streams) * shape_.streams;
    vector("attn_norm.weight", shape_.dim, 1, kGainSpread);
    vector("ffn_norm.weight", shape_.dim, 1, kGainSpread);
    hyper("hc_attn", mixes, 3);
    hyper("hc_ffn", mixes, 3);
    attention();
    const int32_t ratio = synth_ratio(shape_, layer);
    if (ratio != 0) compressor("attn_compressor", ratio, shape_.head_dim);
    if (ratio == 4) indexer();
    experts(layer < shape_.hash_layers);
  }

  void attention() {
    const int64_t width = int64_t{shape_.heads} * shape_.head_dim;
    const int64_t output_width = int64_t{shape_.output_groups} * shape_.output_rank;
    matrix("attn_q_a", formats_.dense, shape_.dim, shape_.q_rank);
    vector("attn_q_a_norm.weight", shape_.q_rank, 1, kGainSpread);
    matrix("attn_q_b", formats_.dense, shape_.q_rank, width);
    matrix("attn_kv", formats_.dense, shape_.dim, shape_.head_dim);
    vector("attn_kv_a_norm.weight", shape_.head_dim, 1, kGainSpread);
    vector("attn_sinks.weight", shape_.heads, 0, 1);
    matrix("attn_output_a", formats_.dense, width / shape_.output_groups, output_width);
    into_streams(matrix("attn_output_b", formats_.dense, output_width, shape_.dim));
  }

  void compressor(const std::string& name, int32_t ratio, int64_t width) {
    const int64_t lanes = ratio == 4 ? 2 * width : width;
    matrix(name + "_kv", TensorType::kF16, shape_.dim, lanes);
    matrix(name + "_gate", TensorType::kF16, shape_.dim, lanes);
    add({prefix_ + name + "_ape.weight",
         TensorType::kF32,
         {lanes, ratio},
         SynthContent::kWeights,
         0,
         0.5f});
    vector(name + "_norm.weight", width, 1, kGainSpread);
  }

  void indexer() {
    matrix("indexer.attn_q_b", TensorType::kF16, shape_.q_rank,
           int64_t{shape_.index_heads} * shape_.index_dim);
    matrix("indexer.proj", TensorType::kF16, shape_.dim, shape_.index_heads);
    compressor("indexer_compressor", 4, shape_.index_dim);
  }

  void experts(bool hashed) {
    matrix("ffn_gate_inp", TensorType::kF32, shape_.dim, shape_.experts);
    if (hashed) {
      add({prefix_ + "ffn_gate_tid2eid.weight",
           TensorType::kI32,
           {shape_.experts_used, shape_.vocab},
           SynthContent::kHashTable});
    } else {
      vector("exp_probs_b.bias", shape_.experts, 0,
             static_cast<float>(bias_spread(shape_, options_.skew)));
    }
    routed("ffn_gate_exps", formats_.gate_up, shape_.dim, shape_.expert_dim);
    routed("ffn_up_exps", formats_.gate_up, shape_.dim, shape_.expert_dim);
    into_streams(routed("ffn_down_exps", formats_.down, shape_.expert_dim, shape_.dim));
    matrix("ffn_gate_shexp", formats_.dense, shape_.dim, shape_.expert_dim);
    matrix("ffn_up_shexp", formats_.dense, shape_.dim, shape_.expert_dim);
    into_streams(matrix("ffn_down_shexp", formats_.dense, shape_.expert_dim, shape_.dim));
  }

  void hyper(const std::string& name, int64_t rows, int64_t scales) {
    matrix(name + "_fn", TensorType::kF32, int64_t{shape_.streams} * shape_.dim, rows);
    vector(name + "_base.weight", rows, 0, 1);
    vector(name + "_scale.weight", scales, 0.5f, 0);
  }

  SynthTensor& routed(const std::string& name, TensorType type, int64_t cols, int64_t rows) {
    SynthTensor& tensor = matrix(name, type, cols, rows);
    tensor.dims.push_back(shape_.experts);
    tensor.hole = options_.holes != SynthHoles::kNone;
    return tensor;
  }

  // What these make is added to the streams; all layers together add about what stood there before.
  void into_streams(SynthTensor& tensor) const {
    tensor.spread /= std::sqrt(static_cast<float>(shape_.layers));
  }

  SynthTensor& matrix(const std::string& name, TensorType type, int64_t cols, int64_t rows) {
    return add({prefix_ + name + ".weight",
                type,
                {cols, rows},
                SynthContent::kWeights,
                0,
                1 / std::sqrt(static_cast<float>(cols))});
  }

  void vector(const std::string& name, int64_t count, float mean, float spread) {
    add({prefix_ + name, TensorType::kF32, {count}, SynthContent::kWeights, mean, spread});
  }

  SynthTensor& add(SynthTensor tensor) {
    tensor.hole = options_.holes == SynthHoles::kAll;
    return tensors_.emplace_back(std::move(tensor));
  }

  const SynthOptions& options_;
  const SynthShape& shape_;
  const Formats& formats_;
  std::string prefix_;  // "blk.N." or nothing
  std::vector<SynthTensor> tensors_;
};

void check_rows(const SynthTensor& tensor) {
  const TypeInfo& info = type_info(tensor.type);
  if (tensor.dims[0] % info.block_size == 0) return;
  throw usage_error(fmt::format("{} has blocks of {} weights, but {} has rows of {}", info.name,
                                info.block_size, tensor.name, tensor.dims[0]),
                    "--quant, --dense", "Choose a format of smaller blocks");
}

}  // namespace

int32_t synth_ratio(const SynthShape& shape, int32_t layer) {
  if (layer < shape.first_layers) return shape.first_ratio;
  return (layer - shape.first_layers) % 2 == 0 ? 4 : 128;
}

SynthShape released_shape(SynthShape shape) {
  shape.first_layers = 2;
  shape.hash_layers = 3;
  return shape;
}

SynthShape flash_shape() {
  return {.name = "V4-Flash",
          .layers = 43,
          .dim = 4096,
          .heads = 64,
          .head_dim = 512,
          .rope_dim = 64,
          .q_rank = 1024,
          .output_groups = 8,
          .output_rank = 1024,
          .window = 128,
          .first_ratio = 0,
          .index_heads = 64,
          .index_dim = 128,
          .index_top_k = 512,
          .experts = 256,
          .experts_used = 6,
          .expert_dim = 2048,
          .expert_scale = 1.5f,
          .clamp = 10,
          .streams = 4,
          .sinkhorn_iterations = 20,
          .vocab = 129280,
          .context = 1048576};
}

SynthShape pro_shape() {
  SynthShape shape = flash_shape();
  shape.name = "V4-Pro";
  shape.layers = 61;
  shape.dim = 7168;
  shape.heads = 128;
  shape.q_rank = 1536;
  shape.output_groups = 16;
  shape.first_ratio = 128;
  shape.index_top_k = 1024;
  shape.experts = 384;
  shape.expert_dim = 3072;
  shape.expert_scale = 2.5f;
  return shape;
}

int64_t SynthTensor::rows() const {
  int64_t count = 1;
  for (size_t d = 1; d < dims.size(); ++d) count *= dims[d];
  return count;
}

int64_t SynthTensor::row_bytes() const { return hearth::row_bytes(type, dims[0]); }

SynthLayout synth_layout(const SynthOptions& options) {
  SynthLayout layout;
  layout.shape = asked_shape(options);
  layout.tensors = TensorList(options, layout.shape, parse_formats(options)).build();
  for (const SynthTensor& tensor : layout.tensors) {
    check_rows(tensor);
    layout.weight_bytes += tensor.bytes();
    if (!tensor.hole) layout.written_bytes += tensor.bytes();
  }
  layout.keys = synth_keys(layout.shape, options.vocabulary);
  return layout;
}

}  // namespace hearth
