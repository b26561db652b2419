#include "model/weights.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "format/dequantize.h"
#include "format/gguf.h"
#include "support.h"

using namespace hearth;

namespace {

const TensorDir& nano() {
  static const TensorDir dir = open_gguf(test::data("nano/nano.gguf"));
  return dir;
}

// What bind_weights says about `dir` under nano's own config; empty where it binds.
std::string refusal(const TensorDir& dir) {
  static const ModelConfig config = read_config(nano(), "");
  try {
    bind_weights(dir, config, "file.gguf");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void rename(TensorDir& dir, const std::string& from, const std::string& to) {
  auto node = dir.tensors.extract(from);
  REQUIRE(!node.empty());
  node.key() = to;
  node.mapped().name = to;
  dir.tensors.insert(std::move(node));
}

// Whether two views or vectors hold the same weights.
bool same(const Matrix& a, const Matrix& b) {
  return a.type == b.type && a.rows == b.rows && a.cols == b.cols &&
         std::memcmp(a.data, b.data, a.rows * row_bytes(a.type, a.cols)) == 0;
}

// Replaces the bytes of a tensor; they must outlive the use of `dir`.
template <typename T>
void replace(TensorDir& dir, const std::string& name, TensorType type, const std::vector<T>& data) {
  TensorEntry& entry = dir.tensors.at(name);
  entry.type = type;
  entry.bytes = data.size() * sizeof(T);
  entry.data = reinterpret_cast<const unsigned char*>(data.data());
}

struct Renaming {
  std::string name, alias;
};

std::vector<Renaming> aliases() {
  std::vector<Renaming> all = {{"blk.1.exp_probs_b.bias", "blk.1.exp_probs_b.weight"},
                               {"blk.0.attn_kv.weight", "blk.0.attn_kv_latent.weight"},
                               {"blk.0.attn_kv.weight", "blk.0.attn_kv_a_mqa.weight"}};
  for (const std::string part : {"kv", "gate", "ape", "norm"}) {
    for (const std::string block : {"blk.1.", "blk.2."}) {
      all.push_back({block + "attn_compressor_" + part + ".weight",
                     block + "attn_compress_" + part + ".weight"});
    }
    all.push_back({"blk.3.indexer_compressor_" + part + ".weight",
                   "blk.3.indexer.compress_" + part + ".weight"});
  }
  for (const std::string part : {"fn", "base", "scale"}) {
    all.push_back({"output_hc_" + part + ".weight", "hc_head_" + part + ".weight"});
  }
  return all;
}

}  // namespace

TEST_CASE("every tensor binds with its shape") {
  const TensorDir& dir = nano();
  const ModelConfig config = read_config(dir, "");
  const ModelWeights weights = bind_weights(dir, config, "");
  REQUIRE(weights.layers.size() == 4);
  CHECK(weights.embedding.rows == 2048);
  CHECK(weights.embedding.cols == 96);
  CHECK(weights.head_hyper.fn.rows == 4);
  CHECK(weights.head_hyper.base.size() == 4);
  CHECK(weights.head_norm.size() == 96);

  const LayerWeights& hashed = weights.layers[0];
  CHECK(hashed.moe.hash_table.size() == 2048 * 3);
  CHECK(hashed.moe.bias.empty());
  CHECK(hashed.attention.compressor.value.data == nullptr);

  const LayerWeights& csa = weights.layers[1];
  CHECK(csa.moe.bias.size() == 12);
  CHECK(csa.moe.hash_table.empty());
  CHECK(csa.attention_hyper.fn.rows == 24);
  CHECK(csa.attention_hyper.fn.cols == 384);
  CHECK(csa.attention.output_a.rows == 72);
  CHECK(csa.attention.output_a.cols == 96);
  CHECK(csa.attention.compressor.value.rows == 96);
  CHECK(csa.attention.compressor.ape.size() == 4 * 96);
  CHECK(csa.attention.indexer.keys.norm.size() == 32);
  CHECK(csa.attention.indexer.query.rows == 96);
  CHECK(weights.layers[2].attention.compressor.ape.size() == 128 * 48);
  CHECK(weights.layers[2].attention.indexer.query.data == nullptr);

  const Matrix stack = csa.moe.routed.stacks.down;
  CHECK(stack.rows == 12 * 96);
  const Matrix last = expert_slice(stack, 12, 11);
  CHECK(last.rows == 96);
  CHECK(last.cols == 80);
  CHECK(last.data == stack.data + 11 * 96 * 80 * 4);
}

TEST_CASE("every alias of every tensor binds to the same weights") {
  const TensorDir& original = nano();
  const ModelConfig config = read_config(original, "");
  const ModelWeights expected = bind_weights(original, config, "");
  TensorDir all = original;
  for (const auto& [name, alias] : aliases()) {
    TensorDir dir = original;
    rename(dir, name, alias);
    CHECK_MESSAGE(refusal(dir) == "", alias);
    if (all.tensors.contains(name)) rename(all, name, alias);
  }
  const ModelWeights renamed = bind_weights(all, read_config(all, ""), "");
  CHECK(same(renamed.head_hyper.fn, expected.head_hyper.fn));
  CHECK(same(renamed.layers[0].attention.kv, expected.layers[0].attention.kv));
  CHECK(renamed.layers[1].moe.bias == expected.layers[1].moe.bias);
  for (const int layer : {1, 2}) {
    const CompressorWeights& a = renamed.layers[layer].attention.compressor;
    const CompressorWeights& b = expected.layers[layer].attention.compressor;
    CHECK(same(a.value, b.value));
    CHECK(same(a.gate, b.gate));
    CHECK(a.ape == b.ape);
    CHECK(a.norm == b.norm);
  }
  CHECK(same(renamed.layers[3].attention.indexer.keys.gate,
             expected.layers[3].attention.indexer.keys.gate));

  // Where ratios are not given, aliases must be known to tell the kinds of layers.
  all.metadata.erase("deepseek4.attention.compress_ratios");
  CHECK(read_config(all, "").kinds == config.kinds);
}

TEST_CASE("each missing tensor is named, alone and all together") {
  const TensorDir& original = nano();
  for (const auto& [name, entry] : original.tensors) {
    TensorDir dir = original;
    dir.tensors.erase(name);
    const std::string message = refusal(dir);
    CHECK_MESSAGE(contains(message, "file.gguf: " + name + " is missing"), message);
  }
  TensorDir none = original;
  none.tensors.clear();
  const std::string message = refusal(none);
  CHECK_MESSAGE(contains(message, std::to_string(original.tensors.size()) + " problems"), message);
}

TEST_CASE("each wrong shape and type is named with what was expected") {
  const TensorDir& original = nano();
  for (const auto& [name, entry] : original.tensors) {
    TensorDir dir = original;
    ++dir.tensors.at(name).dims.back();
    CHECK_MESSAGE(contains(refusal(dir), name + " is ["), name);
    dir = original;
    dir.tensors.at(name).dims.push_back(2);
    CHECK_MESSAGE(contains(refusal(dir), name + " is ["), name);
    dir = original;
    TensorType& type = dir.tensors.at(name).type;
    type = type == TensorType::kI32 ? TensorType::kF32 : TensorType::kI32;
    CHECK_MESSAGE(contains(refusal(dir), name + " is stored as"), name);
  }
  TensorDir dir = original;
  dir.tensors.at("blk.0.attn_kv.weight").dims = {48, 96};
  CHECK(contains(refusal(dir), "blk.0.attn_kv.weight is [48, 96], expected [96, 48]"));
  dir.tensors.at("blk.0.attn_kv.weight").dims = {96, 48, 1, 1};
  CHECK(refusal(dir) == "");
}

TEST_CASE("values no model can have are refused") {
  const TensorDir& original = nano();
  const std::string norm = "blk.2.attn_norm.weight";
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    TensorDir dir = original;
    std::vector<float> gains(96, 1.0f);
    gains[95] = value;
    replace(dir, norm, TensorType::kF32, gains);
    CHECK(contains(refusal(dir), norm + " holds values that are not finite"));
  }
  const std::string table = "blk.0.ffn_gate_tid2eid.weight";
  for (const int32_t expert : {-1, 12}) {
    TensorDir dir = original;
    std::vector<int32_t> experts(2048 * 3, 11);
    replace(dir, table, TensorType::kI32, experts);
    CHECK(refusal(dir) == "");
    experts.back() = expert;
    CHECK(contains(refusal(dir), table + " names expert " + std::to_string(expert) + " of 12"));
  }
}

TEST_CASE("small tensors of any format expand, and NaN scales are found") {
  const TensorDir& original = nano();
  const ModelConfig config = read_config(original, "");
  TensorDir dir = original;
  const std::string norm = "blk.0.attn_norm.weight";
  std::vector<uint16_t> halves(96, 0x3C00);
  halves[1] = 0xC000;
  replace(dir, norm, TensorType::kF16, halves);
  Vector expected(96, 1.0f);
  expected[1] = -2;
  CHECK(bind_weights(dir, config, "").layers[0].attention.norm == expected);

  for (const auto& [name, values] :
       std::vector<std::pair<std::string, int>>{{norm, 96},
                                                {"blk.0.attn_q_a.weight", 96 * 40},
                                                {"blk.1.ffn_up_exps.weight", 96 * 80 * 12}}) {
    dir = original;
    std::vector<unsigned char> blocks(values / 32 * 17, 127);
    replace(dir, name, TensorType::kMXFP4, blocks);
    CHECK(refusal(dir) == "");
    blocks[blocks.size() - 17] = 255;
    CHECK_MESSAGE(contains(refusal(dir), name), refusal(dir));
  }
}

TEST_CASE("MTP tensors and unknown ones are ignored") {
  TensorDir dir = nano();
  for (const char* name : {"blk.4.attn_norm.weight", "blk.4.nextn.enorm.weight", "rope_freqs"}) {
    TensorEntry entry = dir.tensors.at("blk.0.attn_norm.weight");
    entry.name = name;
    entry.dims = {7};
    dir.tensors.emplace(name, entry);
  }
  CHECK(refusal(dir) == "");
}
