// Metadata in, checked dimensions out. Every bound here is what lets the rest multiply dimensions
// without overflow: a dimension fits 2^20, a product of two that becomes one row or one tensor side
// fits 2^24.
#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "model/tensor_names.h"

namespace hearth {
namespace {

constexpr int64_t kDimMax = int64_t{1} << 20;
constexpr int64_t kHeadsMax = int64_t{1} << 16;
constexpr int64_t kRowMax = int64_t{1} << 24;
constexpr int64_t kLayersMax = 1024;
constexpr int64_t kVocabMax = int64_t{1} << 24;
constexpr int64_t kExpertsMax = 65536;
constexpr int64_t kSharedExpertsMax = 64;
constexpr int64_t kContextMax = std::numeric_limits<int32_t>::max();
constexpr double kTiny = 1e-30;
constexpr double kHuge = 1e30;

using Integer = std::optional<int64_t>;
using Number = std::optional<double>;

// Reads the keys of one file. A field that is missing, ill-typed or out of range becomes a problem
// and reads as 0, so that checks of what depends on it can be left out.
class Fields {
 public:
  Fields(const TensorDir& source_dir, Problems& found) : dir(source_dir), problems(found) {}

  // `fallback` stands where the key is absent; an absent key without one is a problem.
  int64_t integer(std::string_view name, int64_t least, int64_t most, Integer fallback = {}) {
    const std::string key = full(name);
    Integer value = fallback;
    if (has(key)) {
      value = dir.integer(key);
      if (!value) return bad(fmt::format("{} is not an integer", key));
    }
    if (!value) return bad(fmt::format("{} is missing", key));
    if (*value < least || *value > most) {
      return bad(fmt::format("{} is {}, expected {} to {}", key, *value, least, most));
    }
    return *value;
  }

  int32_t dimension(std::string_view name, int64_t most = kDimMax, Integer fallback = {}) {
    return static_cast<int32_t>(integer(name, 1, most, fallback));
  }

  double number(std::string_view name, double least, double most, Number fallback = {}) {
    const std::string key = full(name);
    Number value = fallback;
    if (has(key)) {
      value = dir.number(key);
      if (!value) return static_cast<double>(bad(fmt::format("{} is not a number", key)));
    }
    if (!value) return static_cast<double>(bad(fmt::format("{} is missing", key)));
    return in_range(key, *value, least, most) ? *value : 0;
  }

  bool in_range(const std::string& key, double value, double least, double most) {
    if (value >= least && value <= most) return true;
    bad(fmt::format("{} is {}, expected {} to {}", key, value, least, most));
    return false;
  }

  // One number a block, or one for all. Arrays hold the main layers, with or without entries for
  // MTP blocks (the released configuration counts its MTP block even where the file leaves it out).
  // Empty after a problem.
  std::vector<double> per_layer(std::string_view name, int32_t layers, int32_t mtp_layers) {
    const std::string key = full(name);
    if (layers == 0) return {};
    if (const Number one = dir.number(key)) return std::vector<double>(layers, *one);
    const auto found = dir.metadata.find(key);
    std::vector<double> values;
    if (const auto* reals = std::get_if<std::vector<double>>(&found->second)) values = *reals;
    if (const auto* whole = std::get_if<std::vector<int64_t>>(&found->second)) {
      values.assign(whole->begin(), whole->end());
    }
    const size_t most = static_cast<size_t>(layers) + std::max(mtp_layers, 1);
    if (values.size() < static_cast<size_t>(layers) || values.size() > most) {
      bad(fmt::format("{} is not a number or an array of numbers, one for each of {} layers", key,
                      layers));
      return {};
    }
    values.resize(layers);
    return values;
  }

  bool has(const std::string& key) const { return dir.metadata.contains(key); }
  static std::string full(std::string_view name) { return fmt::format("deepseek4.{}", name); }

  // Dimension `index` (fastest first) of a tensor; nothing where the file has no such tensor or
  // dimension.
  Integer dim_of(std::string_view tensor, size_t index) const {
    const TensorEntry* entry = find_tensor(dir, tensor);
    if (entry == nullptr || index >= entry->dims.size()) return {};
    return entry->dims[index];
  }

  int64_t bad(std::string problem) {
    problems.add(std::move(problem));
    return 0;
  }

  const TensorDir& dir;
  Problems& problems;
};

// a / b where both are known and the quotient is whole.
Integer quotient(Integer a, Integer b) {
  if (!a || !b || *b <= 0 || *a % *b != 0) return {};
  return *a / *b;
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string_view model_of_architecture(const std::string& architecture) {
  if (architecture == "deepseek") return " (DeepSeek LLM or MoE)";
  if (architecture == "deepseek2") return " (DeepSeek-V2, V3 or R1)";
  if (architecture == "deepseek32") return " (DeepSeek-V3.2)";
  for (const char* name : {"deepseek41", "deepseek4.1", "deepseek4_1", "deepseek4-1"}) {
    if (architecture == name) return " (DeepSeek-V4.1)";
  }
  return "";
}

// Anything but a whole DeepSeek-V4 is refused at once: its other fields would be noise.
void refuse_other_models(const TensorDir& dir, const std::string& source) {
  const std::string advice = "hearth runs DeepSeek-V4 models (architecture deepseek4)";
  const std::string* architecture = dir.text("general.architecture");
  if (architecture == nullptr) {
    throw Error("the file does not name its architecture (general.architecture)", source, advice);
  }
  if (*architecture != "deepseek4") {
    throw Error(fmt::format("the file holds a model of architecture '{}'{}",
                            architecture->substr(0, 64), model_of_architecture(*architecture)),
                source, advice);
  }
  const std::string* name = dir.text("general.name");
  const std::string lowered = name == nullptr ? "" : lower_case(name->substr(0, 256));
  if (lowered.find("deepseek") != std::string::npos && lowered.find("v4.1") != std::string::npos) {
    throw Error(fmt::format("the file holds '{}', a DeepSeek-V4.1 model", name->substr(0, 256)),
                source, advice + "; V4.1 has another structure and prompt format");
  }
  if (dir.tensors.empty()) {
    throw Error("the file holds no weights, only metadata", source,
                "Give a file of the whole model");
  }
}

void refuse_mtp_companion(const TensorDir& dir, const ModelConfig& config,
                          const std::string& source) {
  if (config.mtp_layers == 0 || config.layers == 0 || !has_block(dir, config.layers)) return;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    if (has_block(dir, layer)) return;
  }
  throw Error("the file holds only the MTP block of a model", source,
              "Give the file of the main model");
}

void read_sizes(Fields& fields, ModelConfig& config) {
  if (const std::string* name = fields.dir.text("general.name")) config.name = *name;
  const int64_t blocks = fields.integer("block_count", 1, kLayersMax);
  const int64_t mtp = fields.integer("nextn_predict_layers", 0, kLayersMax, 0);
  if (blocks > 0 && mtp >= blocks) {
    fields.bad(fmt::format("deepseek4.nextn_predict_layers {} leaves no main layer of {} blocks",
                           mtp, blocks));
  } else if (blocks > 0) {
    config.layers = static_cast<int32_t>(blocks - mtp);
    config.mtp_layers = static_cast<int32_t>(mtp);
  }
  config.context = fields.integer("context_length", 1, kContextMax, 1048576);
  config.dim = fields.dimension("embedding_length");

  Integer token_count;
  if (const auto found = fields.dir.metadata.find("tokenizer.ggml.tokens");
      found != fields.dir.metadata.end()) {
    if (const auto* tokens = std::get_if<std::vector<std::string>>(&found->second)) {
      token_count = static_cast<int64_t>(tokens->size());
    }
  }
  config.vocab = fields.dimension("vocab_size", kVocabMax, token_count);
}

void read_attention(Fields& fields, ModelConfig& config) {
  config.heads = fields.dimension("attention.head_count", kHeadsMax);
  fields.integer("attention.head_count_kv", 1, 1);
  config.head_dim =
      fields.dimension("attention.key_length", kHeadsMax, fields.dim_of("blk.0.attn_kv.weight", 1));
  const int64_t value_length =
      fields.integer("attention.value_length", 1, kHeadsMax, std::max(config.head_dim, 1));
  if (config.head_dim > 0 && value_length > 0 && value_length != config.head_dim) {
    fields.bad(
        fmt::format("deepseek4.attention.value_length is {}, but key_length is {}: keys are "
                    "values in this architecture",
                    value_length, config.head_dim));
  }
  config.rms_eps = static_cast<float>(fields.number("attention.layer_norm_rms_epsilon", kTiny, 1));
  config.window = fields.dimension("attention.sliding_window");
  config.q_rank =
      fields.dimension("attention.q_lora_rank", kDimMax, fields.dim_of("blk.0.attn_q_a.weight", 1));

  const Integer group_width = fields.dim_of("blk.0.attn_output_a.weight", 0);
  const int64_t width = int64_t{config.heads} * config.head_dim;
  config.output_groups =
      fields.dimension("attention.output_group_count", kHeadsMax, quotient(width, group_width));
  config.output_rank = fields.dimension(
      "attention.output_lora_rank", kDimMax,
      quotient(fields.dim_of("blk.0.attn_output_a.weight", 1), config.output_groups));
}

// The ratio that the tensors of a layer imply.
double ratio_of_tensors(const TensorDir& dir, int32_t layer) {
  const auto has = [&](const char* name) {
    return find_tensor(dir, block_tensor_name(layer, name)) != nullptr;
  };
  if (has("indexer.attn_q_b.weight") || has("indexer_compressor_kv.weight")) return 4;
  return has("attn_compressor_kv.weight") ? 128 : 0;
}

void read_kinds(Fields& fields, ModelConfig& config) {
  constexpr std::string_view kKey = "attention.compress_ratios";
  std::vector<double> ratios;
  if (fields.has(Fields::full(kKey))) {
    ratios = fields.per_layer(kKey, config.layers, config.mtp_layers);
  } else {
    for (int32_t i = 0; i < config.layers; ++i) ratios.push_back(ratio_of_tensors(fields.dir, i));
  }
  for (size_t i = 0; i < ratios.size(); ++i) {
    if (ratios[i] != 0 && ratios[i] != 4 && ratios[i] != 128) {
      fields.bad(fmt::format("deepseek4.{} gives layer {} ratio {}, expected 0, 4 or 128", kKey, i,
                             ratios[i]));
      ratios[i] = 0;
    }
    config.kinds.push_back(static_cast<LayerKind>(static_cast<int32_t>(ratios[i])));
  }
}

bool has_kind(const ModelConfig& config, LayerKind kind) {
  return std::find(config.kinds.begin(), config.kinds.end(), kind) != config.kinds.end();
}

void read_indexer(Fields& fields, ModelConfig& config) {
  if (!has_kind(config, LayerKind::kCsa)) return;
  config.index_heads = fields.dimension("attention.indexer.head_count", kHeadsMax);
  config.index_dim = fields.dimension("attention.indexer.key_length", kHeadsMax);
  config.index_top_k = fields.dimension("attention.indexer.top_k", kContextMax);
}

void read_yarn(Fields& fields, RopeScaling& rope) {
  const std::string type_key = Fields::full("rope.scaling.type");
  if (!fields.has(type_key)) {
    for (const char* name : {"rope.scaling.factor", "rope.scaling.original_context_length"}) {
      if (!fields.has(Fields::full(name))) continue;
      fields.bad(fmt::format("{} is missing although deepseek4.{} is there", type_key, name));
    }
    return;
  }
  const std::string* type = fields.dir.text(type_key);
  if (type != nullptr && *type == "none") return;
  if (type == nullptr) {
    fields.bad(fmt::format("{} is not a text", type_key));
    return;
  }
  if (*type != "yarn") {
    fields.bad(fmt::format("{} is '{}', expected 'yarn' or 'none'", type_key, type->substr(0, 64)));
    return;
  }
  rope.factor = fields.number("rope.scaling.factor", 1, kHuge);
  rope.original_context = fields.number("rope.scaling.original_context_length", 1, kHuge);
  rope.beta_fast = fields.number("rope.scaling.yarn_beta_fast", kTiny, kHuge, 32);
  rope.beta_slow = fields.number("rope.scaling.yarn_beta_slow", kTiny, kHuge, 1);
}

void read_rope(Fields& fields, ModelConfig& config) {
  constexpr double kThetaLeast = 1.0001;  // YaRN divides by ln(theta)
  config.rope_dim = fields.dimension("rope.dimension_count", kHeadsMax);
  config.rope_plain.theta = fields.number("rope.freq_base", kThetaLeast, kHuge);
  if (!has_kind(config, LayerKind::kCsa) && !has_kind(config, LayerKind::kHca)) return;
  config.rope_compressed.theta =
      fields.number("attention.compress_rope_freq_base", kThetaLeast, kHuge);
  read_yarn(fields, config.rope_compressed);
}

std::vector<float> read_clamps(Fields& fields, std::string_view name, const ModelConfig& config) {
  std::vector<float> clamps;
  for (const double value : fields.per_layer(name, config.layers, config.mtp_layers)) {
    if (!fields.in_range(Fields::full(name), value, kTiny, kHuge)) return {};
    clamps.push_back(static_cast<float>(value));
  }
  return clamps;
}

void read_experts(Fields& fields, ModelConfig& config) {
  config.experts = fields.dimension("expert_count", kExpertsMax);
  config.experts_used = fields.dimension("expert_used_count", kExpertsMax);
  config.expert_dim = fields.dimension("expert_feed_forward_length");
  config.shared_dim =
      fields.dimension("expert_shared_count", kSharedExpertsMax) * config.expert_dim;
  config.hash_layers = static_cast<int32_t>(
      fields.integer("hash_layer_count", 0, config.layers > 0 ? config.layers : kLayersMax));
  config.expert_scale = static_cast<float>(fields.number("expert_weights_scale", kTiny, kHuge));
  config.expert_norm = fields.integer("expert_weights_norm", 0, 1, 1) == 1;
  fields.integer("expert_gating_func", 4, 4);

  if (!fields.has(Fields::full("swiglu_clamp_exp"))) {
    fields.bad("deepseek4.swiglu_clamp_exp is missing");
    return;
  }
  config.expert_clamp = read_clamps(fields, "swiglu_clamp_exp", config);
  config.shared_clamp = fields.has(Fields::full("swiglu_clamp_shexp"))
                            ? read_clamps(fields, "swiglu_clamp_shexp", config)
                            : config.expert_clamp;
}

void read_hyper_connections(Fields& fields, ModelConfig& config) {
  const Integer flattened = fields.dim_of("blk.0.hc_attn_fn.weight", 0);
  config.streams =
      fields.dimension("hyper_connection.count", kStreamsMax, quotient(flattened, config.dim));
  config.sinkhorn_iterations = fields.dimension("hyper_connection.sinkhorn_iterations", 1000);
  config.hyper_eps = static_cast<float>(fields.number("hyper_connection.epsilon", kTiny, 1));
}

// Fields that are each in range may still contradict one another. A field that failed is 0 here and
// passes.
void check_relations(const ModelConfig& config, Problems& problems) {
  const auto expect = [&](bool holds, std::string problem) {
    if (!holds) problems.add(std::move(problem));
  };
  const auto bounded = [&](const char* what, int64_t a, int64_t b) {
    expect(a * b <= kRowMax,
           fmt::format("{} is {} x {}, expected at most {}", what, a, b, kRowMax));
  };
  bounded("heads x head dim", config.heads, config.head_dim);
  bounded("output groups x output rank", config.output_groups, config.output_rank);
  bounded("indexer heads x indexer dim", config.index_heads, config.index_dim);
  bounded("streams x hidden size", config.streams, config.dim);

  const int32_t head_dim = config.head_dim;
  const int32_t rope_dim = config.rope_dim;
  expect(head_dim % 2 == 0, fmt::format("key length {} is odd", head_dim));
  expect(rope_dim % 2 == 0, fmt::format("rope.dimension_count {} is odd", rope_dim));
  expect(head_dim == 0 || rope_dim <= head_dim,
         fmt::format("rope.dimension_count {} exceeds key length {}", rope_dim, head_dim));
  expect(config.index_dim == 0 || rope_dim <= config.index_dim,
         fmt::format("rope.dimension_count {} exceeds indexer key length {}", rope_dim,
                     config.index_dim));
  expect(config.output_groups == 0 || config.heads % config.output_groups == 0,
         fmt::format("{} heads do not divide into {} output groups", config.heads,
                     config.output_groups));
  expect(config.experts == 0 || config.experts_used <= config.experts,
         fmt::format("expert_used_count {} exceeds expert_count {}", config.experts_used,
                     config.experts));
}

}  // namespace

ModelConfig read_config(const TensorDir& dir, const std::string& source) {
  refuse_other_models(dir, source);
  Problems problems(source);
  Fields fields(dir, problems);
  ModelConfig config;
  read_sizes(fields, config);
  refuse_mtp_companion(dir, config, source);
  read_attention(fields, config);
  read_kinds(fields, config);
  read_indexer(fields, config);
  read_rope(fields, config);
  read_experts(fields, config);
  read_hyper_connections(fields, config);
  check_relations(config, problems);
  problems.throw_if_any("Convert the model again or download it from another source");
  return config;
}

}  // namespace hearth
