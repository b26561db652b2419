// Each tensor is asked for once, by the name, shape and kind the architecture gives it; whatever
// does not fit is noted, and all notes are thrown together.
#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "format/dequantize.h"
#include "model/tensor_names.h"

namespace hearth {
namespace {

// Larger tensors (routed experts of real models) are not read at load only to look for NaN scales.
constexpr uint64_t kScanBytesMax = uint64_t{64} << 20;

// A dimension of 1 at the end may be written or left out.
std::vector<int64_t> without_trailing_ones(std::vector<int64_t> dims) {
  while (dims.size() > 1 && dims.back() == 1) dims.pop_back();
  return dims;
}

// Rows are interleaved only after they were looked at as stored.
bool has_nan_scale(const TensorEntry& entry) {
  if (entry.type != TensorType::kMXFP4 || entry.interleaved) return false;
  if (entry.bytes > kScanBytesMax) return false;
  const auto block_bytes = static_cast<uint64_t>(type_info(entry.type).block_bytes);
  for (uint64_t at = 0; at < entry.bytes; at += block_bytes) {
    if (entry.data[at] == 255) return true;
  }
  return false;
}

class Binder {
 public:
  Binder(const TensorDir& dir, const ModelConfig& config, Problems& problems)
      : dir_(dir), config_(config), problems_(problems) {}

  ModelWeights bind() {
    ModelWeights weights{};
    prefix_ = "";
    weights.embedding = matrix("token_embd.weight", config_.vocab, config_.dim);
    weights.head_hyper = hyper("output_hc", config_.streams, 1);
    weights.head_norm = vector("output_norm.weight", config_.dim);
    weights.output = matrix("output.weight", config_.vocab, config_.dim);
    for (int32_t i = 0; i < config_.layers; ++i) weights.layers.push_back(layer(i));
    return weights;
  }

 private:
  LayerWeights layer(int32_t index) {
    prefix_ = block_tensor_name(index, "");
    LayerWeights weights{};
    weights.attention_hyper = hyper("hc_attn", config_.mixes(), 3);
    weights.attention = attention(config_.kinds[index]);
    weights.moe_hyper = hyper("hc_ffn", config_.mixes(), 3);
    weights.moe = moe(index < config_.hash_layers);
    return weights;
  }

  HyperWeights hyper(const std::string& name, int64_t rows, int64_t scales) {
    return {matrix(name + "_fn.weight", rows, int64_t{config_.streams} * config_.dim),
            vector(name + "_base.weight", rows), vector(name + "_scale.weight", scales)};
  }

  AttentionWeights attention(LayerKind kind) {
    const int64_t dim = config_.dim;
    const int64_t width = int64_t{config_.heads} * config_.head_dim;
    const int64_t output_width = int64_t{config_.output_groups} * config_.output_rank;
    AttentionWeights weights{};
    weights.norm = vector("attn_norm.weight", dim);
    weights.q_a = matrix("attn_q_a.weight", config_.q_rank, dim);
    weights.q_a_norm = vector("attn_q_a_norm.weight", config_.q_rank);
    weights.q_b = matrix("attn_q_b.weight", width, config_.q_rank);
    weights.kv = matrix("attn_kv.weight", config_.head_dim, dim);
    weights.kv_norm = vector("attn_kv_a_norm.weight", config_.head_dim);
    weights.sinks = vector("attn_sinks.weight", config_.heads);
    weights.output_a = matrix("attn_output_a.weight", output_width, width / config_.output_groups);
    weights.output_b = matrix("attn_output_b.weight", dim, output_width);
    if (kind != LayerKind::kWindow) {
      weights.compressor = compressor("attn_compressor", kind, config_.head_dim);
    }
    if (kind == LayerKind::kCsa) weights.indexer = indexer();
    return weights;
  }

  CompressorWeights compressor(const std::string& name, LayerKind kind, int64_t width) {
    const int64_t rows = kind == LayerKind::kCsa ? 2 * width : width;
    return {matrix(name + "_kv.weight", rows, config_.dim),
            matrix(name + "_gate.weight", rows, config_.dim),
            small(name + "_ape.weight", {rows, static_cast<int64_t>(kind)}),
            vector(name + "_norm.weight", width)};
  }

  IndexerWeights indexer() {
    const int64_t width = int64_t{config_.index_heads} * config_.index_dim;
    return {matrix("indexer.attn_q_b.weight", width, config_.q_rank),
            matrix("indexer.proj.weight", config_.index_heads, config_.dim),
            compressor("indexer_compressor", LayerKind::kCsa, config_.index_dim)};
  }

  MoeWeights moe(bool hashed) {
    MoeWeights weights{};
    weights.norm = vector("ffn_norm.weight", config_.dim);
    weights.router = matrix("ffn_gate_inp.weight", config_.experts, config_.dim);
    if (hashed) {
      weights.hash_table = hash_table();
    } else {
      weights.bias = vector("exp_probs_b.bias", config_.experts);
    }
    LayerExperts& routed = weights.routed;
    routed.stacks = {
        stack("ffn_gate_exps.weight", config_.expert_dim, config_.dim, routed.places[0]),
        stack("ffn_up_exps.weight", config_.expert_dim, config_.dim, routed.places[1]),
        stack("ffn_down_exps.weight", config_.dim, config_.expert_dim, routed.places[2])};
    weights.shared = {matrix("ffn_gate_shexp.weight", config_.shared_dim, config_.dim),
                      matrix("ffn_up_shexp.weight", config_.shared_dim, config_.dim),
                      matrix("ffn_down_shexp.weight", config_.dim, config_.shared_dim)};
    return weights;
  }

  std::vector<int32_t> hash_table() {
    const TensorEntry* entry =
        find("ffn_gate_tid2eid.weight", {config_.experts_used, config_.vocab});
    if (entry == nullptr) return {};
    if (entry->type != TensorType::kI32) return wrong_type(*entry, "I32"), std::vector<int32_t>();
    std::vector<int32_t> table(entry->bytes / sizeof(int32_t));
    std::memcpy(table.data(), entry->data, entry->bytes);
    for (const int32_t expert : table) {
      if (expert >= 0 && expert < config_.experts) continue;
      problems_.add(fmt::format("{} names expert {} of {}", entry->name, expert, config_.experts));
      break;
    }
    return table;
  }

  Matrix matrix(const std::string& name, int64_t rows, int64_t cols) {
    return view(name, {cols, rows}, rows, cols);
  }

  // All routed experts of a layer: rows are stacked expert after expert.
  Matrix stack(const std::string& name, int64_t rows, int64_t cols, StackPlace& place) {
    const std::vector<int64_t> dims = {cols, rows, config_.experts};
    if (const TensorEntry* entry = find_tensor(dir_, prefix_ + name)) {
      place = {entry->file, static_cast<int64_t>(entry->offset)};
    }
    return view(name, dims, rows * config_.experts, cols);
  }

  Matrix view(const std::string& name, const std::vector<int64_t>& dims, int64_t rows,
              int64_t cols) {
    const TensorEntry* entry = find_weights(name, dims);
    if (entry == nullptr) return {TensorType::kF32, rows, cols, nullptr};
    if (has_nan_scale(*entry)) problems_.add(entry->name + " has blocks whose scale is NaN");
    return {entry->type, rows, cols, entry->data, entry->interleaved};
  }

  Vector vector(const std::string& name, int64_t count) { return small(name, {count}); }

  Vector small(const std::string& name, const std::vector<int64_t>& dims) {
    const TensorEntry* entry = find_weights(name, dims);
    if (entry == nullptr) return {};
    int64_t count = 1;
    for (const int64_t dim : dims) count *= dim;
    Vector values(count);
    dequantize(entry->type, entry->data, count, values.data());
    for (const float value : values) {
      if (std::isfinite(value)) continue;
      problems_.add(entry->name + " holds values that are not finite");
      break;
    }
    return values;
  }

  const TensorEntry* find_weights(const std::string& name, const std::vector<int64_t>& dims) {
    const TensorEntry* entry = find(name, dims);
    if (entry == nullptr || entry->type != TensorType::kI32) return entry;
    wrong_type(*entry, "a weight format");
    return nullptr;
  }

  // The tensor with exactly these dims (fastest first); null after noting a problem.
  const TensorEntry* find(const std::string& name, const std::vector<int64_t>& dims) {
    const TensorEntry* entry = find_tensor(dir_, prefix_ + name);
    if (entry == nullptr) {
      problems_.add(fmt::format("{}{} is missing", prefix_, name));
      return nullptr;
    }
    if (without_trailing_ones(entry->dims) == without_trailing_ones(dims)) return entry;
    problems_.add(fmt::format("{} is {}, expected {}", entry->name, entry->dims, dims));
    return nullptr;
  }

  void wrong_type(const TensorEntry& entry, const char* expected) {
    problems_.add(fmt::format("{} is stored as {}, expected {}", entry.name,
                              type_info(entry.type).name, expected));
  }

  const TensorDir& dir_;
  const ModelConfig& config_;
  Problems& problems_;
  std::string prefix_;  // "blk.N." or nothing
};

}  // namespace

std::vector<LayerExperts> layer_experts(const ModelWeights& weights) {
  std::vector<LayerExperts> layers;
  for (const LayerWeights& layer : weights.layers) layers.push_back(layer.moe.routed);
  return layers;
}

ModelWeights bind_weights(const TensorDir& dir, const ModelConfig& config,
                          const std::string& source) {
  Problems problems(source);
  ModelWeights weights = Binder(dir, config, problems).bind();
  problems.throw_if_any("Convert the model again or download it from another source");
  return weights;
}

}  // namespace hearth
