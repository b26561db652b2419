#include <doctest/doctest.h>

#include <cmath>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "format/gguf.h"
#include "model/kv_cache.h"
#include "model/shape.h"
#include "model/weights.h"
#include "support.h"

namespace hearth {
namespace {

ModelShape released(const std::string& name, const std::string& quant = "mxfp4",
                    const std::string& dense = "q8_0") {
  const TensorDir dir = released_header(name, quant, dense);
  const ModelConfig config = read_config(dir, name);
  return shape_of(dir, config, choose_kernels(""), KvType::kBF16);
}

int64_t routed_weights(const ModelShape& model) {
  int64_t weights = 0;
  for (const LayerShape& layer : model.layers) {
    for (const MatrixUse& use : layer.expert) weights += use.weights * model.experts;
  }
  return weights;
}

}  // namespace

TEST_CASE("Flash and Pro as released: layers, experts and bytes") {
  const ModelShape flash = released("flash");
  CHECK(flash.layers.size() == 43);
  CHECK(flash.layers[0].ratio == 0);
  CHECK(flash.layers[1].ratio == 0);
  CHECK(flash.layers[2].ratio == 4);
  CHECK(flash.layers[3].ratio == 128);
  CHECK(flash.layers[42].ratio == 4);
  CHECK(flash.layers[2].hashed);
  CHECK(!flash.layers[3].hashed);
  CHECK(flash.expert_count() == 11008);
  CHECK(flash.layers[5].expert_bytes == 25165824 / 32 * 17);
  CHECK(routed_weights(flash) == 277025390592);  // 277.0 B
  CHECK(flash.routed_bytes() == routed_weights(flash) / 32 * 17);

  const ModelShape pro = released("pro");
  CHECK(pro.layers.size() == 61);
  CHECK(pro.layers[0].ratio == 128);
  CHECK(pro.layers[1].ratio == 128);
  CHECK(pro.layers[2].ratio == 4);
  CHECK(pro.expert_count() == 61 * 384);
  CHECK(std::abs(static_cast<double>(routed_weights(pro)) - 1547e9) < 1e9);
}

TEST_CASE("all of Flash's weights are 284.3 B, what a token multiplies 13.3 B") {
  const TensorDir dir = released_header("flash", "mxfp4", "q8_0");
  int64_t all = 0;
  for (const auto& [name, tensor] : dir.tensors) {
    if (tensor.type == TensorType::kI32) continue;
    int64_t count = 1;
    for (const int64_t dim : tensor.dims) count *= dim;
    all += count;
  }
  CHECK(std::abs(static_cast<double>(all) - 284.33e9) < 0.02e9);

  const ModelShape flash = released("flash");
  double used = static_cast<double>(flash.head[0].weights);
  for (const LayerShape& layer : flash.layers) {
    for (const MatrixUse& use : layer.dense) used += static_cast<double>(use.weights);
    for (const MatrixUse& use : layer.expert) used += 6 * static_cast<double>(use.weights);
  }
  CHECK(std::abs(used - 13.27e9) < 0.05e9);
}

TEST_CASE("bytes of parts add up to those of all tensors, in every mix of formats") {
  for (const char* name : {"flash", "pro"}) {
    for (const char* quant : {"mxfp4", "q4_k", "q2", "iq2_xxs"}) {
      for (const char* dense : {"fp8", "q8_0", "q4_k"}) {
        CAPTURE(name);
        CAPTURE(quant);
        CAPTURE(dense);
        const TensorDir dir = released_header(name, quant, dense);
        int64_t bytes = 0;
        for (const auto& [tensor_name, tensor] : dir.tensors) {
          bytes += static_cast<int64_t>(tensor.bytes);
        }
        const ModelShape shape = released(name, quant, dense);
        CHECK(shape.weight_bytes() == bytes);
        for (const PaddingBytes& padding : shape.padding) CHECK(padding.with_experts == 0);
        CHECK(shape.slot_bytes > shape.layers[0].expert_bytes);
        CHECK(shape.slot_bytes <= shape.layers[0].expert_bytes + 3 * 2 * 4096);
      }
    }
  }
}

TEST_CASE("a file's shape has its bytes, and its caches those that are then made") {
  const TensorDir dir = open_gguf(test::models("demo.gguf"));
  const ModelConfig config = read_config(dir, "demo");
  int64_t bytes = 0;
  for (const auto& [name, tensor] : dir.tensors) bytes += static_cast<int64_t>(tensor.bytes);
  for (const KvType kv : {KvType::kF32, KvType::kBF16}) {
    const ModelShape shape = shape_of(dir, config, choose_kernels(""), kv);
    CHECK(shape.weight_bytes() == bytes);
    for (const int64_t context : {1, 63, 1000}) {
      Limits limits;
      limits.chunk_tokens = 48;
      int64_t planned = 0;
      for (const KvBytes& layer : shape.kv_bytes(context, 48)) planned += layer.total();
      CHECK(planned == KvCache(config, kv, context, limits).bytes());
    }
  }
}

TEST_CASE("tables of token ids tell which experts are likely used; wrong ones tell nothing") {
  TensorDir dir = open_gguf(test::models("demo.gguf"));
  const ModelConfig config = read_config(dir, "demo");
  REQUIRE(config.hash_layers == 2);
  const auto use_of = [&](int layer) {
    return shape_of(dir, config, choose_kernels(""), KvType::kF32).layers[layer].likely_use;
  };
  const ModelWeights weights = bind_weights(dir, config, "demo");
  for (int layer = 0; layer < 2; ++layer) {
    std::vector<double> expected(config.experts, 0);
    const std::vector<int32_t>& table = weights.layers[layer].moe.hash_table;
    for (size_t i = 0; i < table.size(); ++i) {
      expected[table[i]] += 1 / (static_cast<double>(i / config.experts_used) + 100);
    }
    const std::vector<double> use = use_of(layer);
    REQUIRE(use.size() == expected.size());
    for (size_t e = 0; e < use.size(); ++e) CHECK(use[e] == doctest::Approx(expected[e]));
  }
  CHECK(use_of(2).empty());
  CHECK(released("flash").layers[0].likely_use.empty());

  TensorEntry& entry = dir.tensors.at("blk.0.ffn_gate_tid2eid.weight");
  const TensorEntry whole = entry;
  std::vector<unsigned char> bytes(entry.data, entry.data + entry.bytes);
  entry.data = bytes.data();
  CHECK(use_of(0).size() == 16);
  bytes[4 * 999] = 16;  // no expert of that number
  CHECK(use_of(0).empty());
  entry = whole;
  std::swap(entry.dims[0], entry.dims[1]);
  CHECK(use_of(0).empty());
  entry = whole;
  entry.type = TensorType::kF32;
  CHECK(use_of(0).empty());
}

TEST_CASE("KV of Flash at a million tokens: 6.7 GiB that grow with the context") {
  int64_t growing = 0;
  for (const KvBytes& layer : released("flash").kv_bytes(1 << 20, 2048)) {
    growing += layer.entries + layer.index;
  }
  CHECK(std::abs(static_cast<double>(growing) / 0x1p30 - 6.7) < 0.1);
}

TEST_CASE("other names and formats are refused") {
  CHECK_THROWS_AS(released_header("medium", "mxfp4", "q8_0"), Error);
  CHECK_THROWS_AS(released_header("flash", "q9", "q8_0"), Error);
  CHECK_THROWS_AS(released_header("flash", "mxfp4", "fp9"), Error);
}

}  // namespace hearth
