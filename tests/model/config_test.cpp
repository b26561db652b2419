#include "model/config.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "base/error.h"
#include "format/gguf.h"
#include "model/tensor_names.h"
#include "support.h"

using namespace hearth;

namespace {

const TensorDir& nano() {
  static const TensorDir dir = open_gguf(test::data("nano/nano.gguf"));
  return dir;
}

std::string key(const std::string& name) { return "deepseek4." + name; }

// The message read_config refuses `dir` with, empty where it does not.
std::string refusal(const TensorDir& dir) {
  try {
    read_config(dir, "file.gguf");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string refusal_with(const std::string& name, MetadataValue value) {
  TensorDir dir = nano();
  dir.metadata[key(name)] = std::move(value);
  return refusal(dir);
}

ModelConfig without(const std::vector<std::string>& names) {
  TensorDir dir = nano();
  for (const std::string& name : names) REQUIRE(dir.metadata.erase(key(name)) == 1);
  return read_config(dir, "file.gguf");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const std::vector<std::string> kRequired = {
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.compress_rope_freq_base",
    "attention.indexer.head_count",
    "attention.indexer.key_length",
    "attention.indexer.top_k",
    "rope.dimension_count",
    "rope.freq_base",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "expert_feed_forward_length",
    "expert_gating_func",
    "expert_weights_scale",
    "swiglu_clamp_exp",
    "hash_layer_count",
    "hyper_connection.sinkhorn_iterations",
    "hyper_connection.epsilon",
};

}  // namespace

TEST_CASE("every field of a config is read") {
  const ModelConfig config = read_config(nano(), "nano.gguf");
  CHECK(config.name == "nano");
  CHECK(config.layers == 4);
  CHECK(config.mtp_layers == 0);
  CHECK(config.context == 1048576);
  CHECK(config.dim == 96);
  CHECK(config.vocab == 2048);
  CHECK(config.heads == 6);
  CHECK(config.head_dim == 48);
  CHECK(config.rope_dim == 16);
  CHECK(config.q_rank == 40);
  CHECK(config.output_groups == 3);
  CHECK(config.output_rank == 24);
  CHECK(config.window == 32);
  CHECK(config.kinds == std::vector<LayerKind>{LayerKind::kWindow, LayerKind::kCsa, LayerKind::kHca,
                                               LayerKind::kCsa});
  CHECK(config.rope_plain.theta == 10000);
  CHECK(config.rope_plain.factor == 1);
  CHECK(config.rope_compressed.theta == 160000);
  CHECK(config.rope_compressed.factor == 16);
  CHECK(config.rope_compressed.original_context == 65536);
  CHECK(config.rope_compressed.beta_fast == 32);
  CHECK(config.rope_compressed.beta_slow == 1);
  CHECK(config.rms_eps == 1e-6f);
  CHECK(config.index_heads == 3);
  CHECK(config.index_dim == 32);
  CHECK(config.index_top_k == 8);
  CHECK(config.experts == 12);
  CHECK(config.experts_used == 3);
  CHECK(config.expert_dim == 80);
  CHECK(config.shared_dim == 80);
  CHECK(config.hash_layers == 1);
  CHECK(config.expert_scale == 1.5f);
  CHECK(config.expert_norm);
  CHECK(config.expert_clamp == std::vector<float>(4, 1.0f));
  CHECK(config.shared_clamp == std::vector<float>(4, 1.0f));
  CHECK(config.streams == 4);
  CHECK(config.sinkhorn_iterations == 20);
  CHECK(config.hyper_eps == 1e-6f);
}

TEST_CASE("fields that may be absent have their defaults, or come from tensors") {
  const ModelConfig full = read_config(nano(), "nano.gguf");
  const ModelConfig derived =
      without({"attention.key_length", "attention.value_length", "attention.q_lora_rank",
               "attention.output_group_count", "attention.output_lora_rank",
               "attention.compress_ratios", "hyper_connection.count", "vocab_size"});
  CHECK(derived.head_dim == full.head_dim);
  CHECK(derived.q_rank == full.q_rank);
  CHECK(derived.output_groups == full.output_groups);
  CHECK(derived.output_rank == full.output_rank);
  CHECK(derived.kinds == full.kinds);
  CHECK(derived.streams == full.streams);
  CHECK(derived.vocab == full.vocab);

  TensorDir dir = nano();
  dir.metadata[key("context_length")] = int64_t{4096};
  CHECK(read_config(dir, "").context == 4096);
  dir.metadata.erase(key("context_length"));
  dir.metadata.erase(key("swiglu_clamp_shexp"));
  dir.metadata.erase(key("expert_weights_norm"));
  dir.metadata.erase(key("nextn_predict_layers"));
  dir.metadata[key("swiglu_clamp_exp")] = std::vector<double>{1, 2, 3, 4};
  const ModelConfig defaults = read_config(dir, "");
  CHECK(defaults.context == 1048576);
  CHECK(defaults.shared_clamp == std::vector<float>{1, 2, 3, 4});
  CHECK(defaults.expert_norm);
  CHECK(defaults.mtp_layers == 0);

  const ModelConfig plain =
      without({"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
               "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"});
  CHECK(plain.rope_compressed.factor == 1);
  CHECK(plain.rope_compressed.theta == 160000);
}

TEST_CASE("fields may be scalars for arrays, integers for numbers, and cover the MTP block") {
  TensorDir dir = nano();
  dir.metadata[key("swiglu_clamp_exp")] = 7.0;
  dir.metadata[key("swiglu_clamp_shexp")] = std::vector<int64_t>{1, 2, 3, 4};
  dir.metadata[key("rope.freq_base")] = int64_t{10000};
  dir.metadata[key("expert_weights_norm")] = int64_t{0};
  dir.metadata[key("rope.scaling.type")] = std::string("none");
  const ModelConfig config = read_config(dir, "");
  CHECK(config.expert_clamp == std::vector<float>(4, 7.0f));
  CHECK(config.shared_clamp == std::vector<float>{1, 2, 3, 4});
  CHECK(config.rope_plain.theta == 10000);
  CHECK(!config.expert_norm);
  CHECK(config.rope_compressed.factor == 1);

  dir.metadata[key("attention.compress_ratios")] = int64_t{128};
  CHECK(read_config(dir, "").kinds == std::vector<LayerKind>(4, LayerKind::kHca));
  CHECK(read_config(dir, "").index_heads == 0);

  TensorDir with_mtp = nano();
  with_mtp.metadata[key("block_count")] = int64_t{5};
  with_mtp.metadata[key("nextn_predict_layers")] = int64_t{1};
  with_mtp.metadata[key("attention.compress_ratios")] = std::vector<int64_t>{0, 4, 128, 4, 0};
  CHECK(read_config(with_mtp, "").layers == 4);
  CHECK(read_config(with_mtp, "").mtp_layers == 1);
  CHECK(read_config(with_mtp, "").kinds.size() == 4);
}

TEST_CASE("each missing field is named, alone and together with all others") {
  TensorDir none = nano();
  for (const std::string& name : kRequired) {
    TensorDir dir = nano();
    REQUIRE(dir.metadata.erase(key(name)) == 1);
    const std::string message = refusal(dir);
    CHECK_MESSAGE(contains(message, "file.gguf: " + key(name) + " is missing"), message);
    // Without blocks there are no layers to miss anything.
    if (name != "block_count") none.metadata.erase(key(name));
  }
  const std::string all = refusal(none);
  CHECK_MESSAGE(contains(all, std::to_string(kRequired.size() - 1) + " problems"), all);
  CHECK(contains(all, key("attention.sliding_window") + " is missing"));
}

TEST_CASE("each ill-typed field is named") {
  for (const std::string& name : kRequired) {
    const std::string message = refusal_with(name, std::string("many"));
    CHECK_MESSAGE(contains(message, key(name) + " is not a"), message);
  }
  CHECK(contains(refusal_with("rope.scaling.type", int64_t{1}), "rope.scaling.type is not a text"));
  CHECK(contains(refusal_with("vocab_size", 2048.5), "vocab_size is not an integer"));
}

TEST_CASE("values out of range are refused with the range") {
  const auto refuses = [](const std::string& name, MetadataValue value, const std::string& words) {
    const std::string message = refusal_with(name, std::move(value));
    CHECK_MESSAGE(contains(message, words), name << ": " << message);
  };
  for (const char* name :
       {"block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
        "attention.key_length", "attention.sliding_window", "attention.indexer.top_k",
        "attention.q_lora_rank", "attention.output_group_count", "expert_count",
        "expert_used_count", "rope.dimension_count", "hyper_connection.count", "vocab_size",
        "hyper_connection.sinkhorn_iterations", "expert_feed_forward_length", "context_length"}) {
    refuses(name, int64_t{0}, key(name) + " is 0, expected 1 to");
    refuses(name, std::numeric_limits<int64_t>::min(), key(name) + " is -9223372036854775808");
    refuses(name, std::numeric_limits<int64_t>::max(), key(name) + " is 9223372036854775807");
  }
  refuses("attention.head_count_kv", int64_t{2}, "expected 1 to 1");
  refuses("attention.value_length", int64_t{32}, "value_length is 32, but key_length is 48");
  refuses("expert_gating_func", int64_t{2}, "expert_gating_func is 2, expected 4");
  refuses("hash_layer_count", int64_t{5}, "hash_layer_count is 5, expected 0 to 4");
  refuses("nextn_predict_layers", int64_t{4}, "leaves no main layer");
  refuses("rope.scaling.type", std::string("linear"), "'linear', expected 'yarn' or 'none'");
  refuses("rope.scaling.factor", 0.5, "factor is 0.5");
  refuses("attention.compress_ratios", std::vector<int64_t>{0, 4, 8, 4}, "layer 2 ratio 8");
  refuses("attention.compress_ratios", std::vector<int64_t>{0, 4}, "one for each of 4 layers");
  refuses("swiglu_clamp_exp", std::vector<double>(7, 1.0), "one for each of 4 layers");
  refuses("swiglu_clamp_exp", std::vector<double>{1, 1, 0, 1}, "swiglu_clamp_exp is 0");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const char* name : {"attention.layer_norm_rms_epsilon", "hyper_connection.epsilon",
                           "rope.freq_base", "expert_weights_scale", "rope.scaling.factor"}) {
    refuses(name, nan, key(name) + " is nan");
    refuses(name, infinity, key(name) + " is inf");
    refuses(name, -1.0, key(name) + " is -1");
  }
}

TEST_CASE("fields that contradict one another are refused") {
  const auto refuses = [](const std::string& name, int64_t value, const std::string& words) {
    const std::string message = refusal_with(name, value);
    CHECK_MESSAGE(contains(message, words), message);
  };
  refuses("rope.dimension_count", 15, "rope.dimension_count 15 is odd");
  refuses("rope.dimension_count", 50, "50 exceeds key length 48");
  refuses("rope.dimension_count", 34, "34 exceeds indexer key length 32");
  refuses("attention.key_length", 47, "key length 47 is odd");
  refuses("attention.output_group_count", 4, "6 heads do not divide into 4 output groups");
  refuses("expert_used_count", 13, "expert_used_count 13 exceeds expert_count 12");

  TensorDir dir = nano();
  dir.metadata[key("attention.head_count")] = int64_t{65535};
  dir.metadata[key("attention.key_length")] = int64_t{65534};
  dir.metadata[key("attention.value_length")] = int64_t{65534};
  CHECK(contains(refusal(dir), "heads x head dim is 65535 x 65534"));
  dir.metadata.erase(key("rope.scaling.type"));
  CHECK(contains(refusal(dir), "rope.scaling.type is missing although"));
}

TEST_CASE("files that hold something else are refused plainly") {
  TensorDir dir = nano();
  auto& architecture = dir.metadata["general.architecture"];
  architecture = std::string("llama");
  CHECK(contains(refusal(dir), "architecture 'llama'"));
  architecture = std::string("deepseek2");
  CHECK(contains(refusal(dir), "V3"));
  architecture = std::string("deepseek41");
  CHECK(contains(refusal(dir), "DeepSeek-V4.1"));
  architecture = int64_t{4};
  CHECK(contains(refusal(dir), "does not name its architecture"));

  dir = nano();
  dir.metadata["general.name"] = std::string("DeepSeek-V4.1-Flash");
  CHECK(contains(refusal(dir), "V4.1 model"));
  dir = nano();
  dir.tensors.clear();
  CHECK(contains(refusal(dir), "no weights"));
}

TEST_CASE("a companion file with only the MTP block is refused") {
  TensorDir dir = nano();
  dir.metadata[key("block_count")] = int64_t{4};
  dir.metadata[key("nextn_predict_layers")] = int64_t{1};
  CHECK(refusal(dir) == "");
  std::erase_if(dir.tensors, [](const auto& item) {
    return item.first.starts_with("blk.") && !item.first.starts_with("blk.3.");
  });
  CHECK(contains(refusal(dir), "holds only the MTP block"));

  if (!test::has_shared()) return test::skip("the MTP companion files");
  for (const char* name : {"models/nano/nano-mtp.gguf", "models/demo/demo-mtp.gguf"}) {
    CHECK(contains(refusal(open_gguf(test::shared(name))), "holds only the MTP block"));
  }
}
