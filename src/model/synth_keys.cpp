#include "model/synth_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "format/gguf.h"

namespace hearth {
namespace {

uint32_t u32(int64_t value) { return static_cast<uint32_t>(value); }

void add_model_keys(const SynthShape& shape, SynthKeys& keys) {
  const auto add = [&](const char* name, GgufValue value) {
    keys.emplace_back(fmt::format("deepseek4.{}", name), std::move(value));
  };
  const auto layers = static_cast<size_t>(shape.layers);
  std::vector<uint32_t> ratios;
  for (int32_t layer = 0; layer < shape.layers; ++layer)
    ratios.push_back(u32(synth_ratio(shape, layer)));

  keys.emplace_back("general.architecture", "deepseek4");
  keys.emplace_back("general.name", fmt::format("synthetic {}, {} layers of {} experts", shape.name,
                                                shape.layers, shape.experts));
  keys.emplace_back("general.alignment", uint32_t{32});
  keys.emplace_back("general.quantization_version", uint32_t{2});
  add("block_count", u32(shape.layers));
  add("context_length", u32(shape.context));
  add("embedding_length", u32(shape.dim));
  add("vocab_size", u32(shape.vocab));
  add("feed_forward_length", u32(shape.expert_dim));
  add("attention.head_count", u32(shape.heads));
  add("attention.head_count_kv", uint32_t{1});
  add("attention.key_length", u32(shape.head_dim));
  add("attention.value_length", u32(shape.head_dim));
  add("attention.layer_norm_rms_epsilon", 1e-6f);
  add("attention.q_lora_rank", u32(shape.q_rank));
  add("attention.output_group_count", u32(shape.output_groups));
  add("attention.output_lora_rank", u32(shape.output_rank));
  add("attention.sliding_window", u32(shape.window));
  add("attention.compress_ratios", ratios);
  add("attention.compress_rope_freq_base", 160000.0f);
  add("attention.indexer.head_count", u32(shape.index_heads));
  add("attention.indexer.key_length", u32(shape.index_dim));
  add("attention.indexer.top_k", u32(shape.index_top_k));
  add("rope.dimension_count", u32(shape.rope_dim));
  add("rope.freq_base", 10000.0f);
  add("rope.scaling.type", "yarn");
  add("rope.scaling.factor", 16.0f);
  add("rope.scaling.original_context_length", uint32_t{65536});
  add("rope.scaling.yarn_beta_fast", 32.0f);
  add("rope.scaling.yarn_beta_slow", 1.0f);
  add("expert_count", u32(shape.experts));
  add("expert_used_count", u32(shape.experts_used));
  add("expert_shared_count", uint32_t{1});
  add("expert_feed_forward_length", u32(shape.expert_dim));
  add("expert_gating_func", uint32_t{4});
  add("expert_weights_scale", shape.expert_scale);
  add("expert_weights_norm", true);
  add("swiglu_clamp_exp", std::vector<float>(layers, shape.clamp));
  add("swiglu_clamp_shexp", std::vector<float>(layers, shape.clamp));
  add("hash_layer_count", u32(shape.hash_layers));
  add("hyper_connection.count", u32(shape.streams));
  add("hyper_connection.sinkhorn_iterations", u32(shape.sinkhorn_iterations));
  add("hyper_connection.epsilon", 1e-6f);
  add("nextn_predict_layers", uint32_t{0});
}

// A value of another file in the widths that engines expect of tokenizer keys.
GgufValue tokenizer_value(const std::string& key, const MetadataValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    if (key.starts_with("tokenizer.ggml.add_")) return *integer != 0;
    return u32(*integer);
  }
  if (const auto* number = std::get_if<double>(&value)) return static_cast<float>(*number);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
    return std::vector<int32_t>(list->begin(), list->end());
  }
  if (const auto* list = std::get_if<std::vector<double>>(&value)) {
    return std::vector<float>(list->begin(), list->end());
  }
  return std::get<std::vector<std::string>>(value);
}

// New tokens that no text becomes; other engines insist that all are different.
void append_unused_tokens(std::vector<std::string>& tokens, size_t count) {
  std::unordered_set<std::string> seen(tokens.begin(), tokens.end());
  while (tokens.size() < count) {
    std::string text = fmt::format("<unused token {}>", tokens.size());
    while (!seen.insert(text).second) text += '_';
    tokens.push_back(std::move(text));
  }
}

void add_tokenizer_keys(const std::filesystem::path& vocabulary, int32_t size, SynthKeys& keys) {
  constexpr int32_t kUnused = 5;
  const TensorDir dir = open_gguf(vocabulary);
  const auto vocab = static_cast<size_t>(size);
  bool has_tokens = false;
  for (const auto& [key, stored] : dir.metadata) {
    if (!key.starts_with("tokenizer.")) continue;
    GgufValue value = tokenizer_value(key, stored);
    if (auto* tokens = std::get_if<std::vector<std::string>>(&value);
        tokens && key == "tokenizer.ggml.tokens") {
      has_tokens = tokens->size() <= vocab;
      append_unused_tokens(*tokens, vocab);
    }
    if (auto* types = std::get_if<std::vector<int32_t>>(&value)) types->resize(vocab, kUnused);
    if (auto* scores = std::get_if<std::vector<float>>(&value)) scores->resize(vocab);
    keys.emplace_back(key, std::move(value));
  }
  if (has_tokens) return;
  throw Error(fmt::format("holds no vocabulary of up to {} tokens", vocab), vocabulary.string(),
              "Name a DeepSeek-V4 model file to take the tokenizer from");
}

}  // namespace

SynthKeys synth_keys(const SynthShape& shape, const std::filesystem::path& vocabulary) {
  SynthKeys keys;
  add_model_keys(shape, keys);
  if (!vocabulary.empty()) add_tokenizer_keys(vocabulary, shape.vocab, keys);
  return keys;
}

}  // namespace hearth
