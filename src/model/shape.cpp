#include "model/shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/kv_cache.h"
#include "model/step.h"
#include "model/synth_layout.h"
#include "model/table_use.h"
#include "offload/store/expert_slots.h"
#include "offload/store/weight_memory.h"

namespace hearth {
namespace {

MatrixUse use_of(const TensorEntry& tensor, int64_t parts = 1) {
  int64_t weights = 1;
  for (const int64_t dim : tensor.dims) weights *= dim;
  return {tensor.type, weights / parts, static_cast<int64_t>(tensor.bytes) / parts};
}

void add_use(std::vector<MatrixUse>& uses, const MatrixUse& use) {
  const auto same = std::ranges::find(uses, use.type, &MatrixUse::type);
  if (same == uses.end()) {
    uses.push_back(use);
  } else {
    same->weights += use.weights;
    same->bytes += use.bytes;
  }
}

// Matrices have inputs and outputs; a compressor's positions (ape) are a table.
bool is_multiplied(const TensorEntry& tensor) {
  return tensor.dims.size() == 2 && tensor.dims[1] > 1 && tensor.type != TensorType::kI32 &&
         tensor.name.find("_ape") == std::string::npos;
}

void add_to_layer(const TensorEntry& tensor, LayerShape& layer) {
  if (is_expert_stack(tensor)) {
    const MatrixUse use = use_of(tensor, tensor.dims[2]);
    layer.expert_bytes += use.bytes;
    add_use(layer.expert, use);
    return;
  }
  layer.dense_bytes += static_cast<int64_t>(tensor.bytes);
  if (is_multiplied(tensor)) add_use(layer.dense, use_of(tensor));
}

void add_tensors(const TensorDir& dir, ModelShape& shape) {
  for (const auto& [name, tensor] : dir.tensors) {
    const int32_t layer = layer_of(tensor);
    if (layer >= 0 && layer < static_cast<int32_t>(shape.layers.size())) {
      add_to_layer(tensor, shape.layers[layer]);
    } else if (is_embedding(tensor)) {
      shape.embedding_bytes += static_cast<int64_t>(tensor.bytes);
    } else {
      shape.head_bytes += static_cast<int64_t>(tensor.bytes);
      if (is_multiplied(tensor)) add_use(shape.head, use_of(tensor));
    }
  }
}

// What a host holds beside a GPU that has the last layers and the head.
std::vector<PaddingBytes> paddings(const TensorDir& dir, int32_t layers) {
  std::vector<HeldWeights> choices;
  for (const bool experts : {false, true}) {
    choices.push_back({kAllLayers, experts});
    for (int32_t dense = layers - 1; dense >= 0; --dense) choices.push_back({dense, experts});
  }
  const std::vector<int64_t> bytes = padding_bytes(dir, choices);
  std::vector<PaddingBytes> result;
  for (int32_t on_gpu = 0; on_gpu <= layers; ++on_gpu) {
    result.push_back({bytes[on_gpu], bytes[layers + 1 + on_gpu]});
  }
  return result;
}

// Room for an expert of any layer: gates and ups are named so, the rest are downs.
int64_t slot_bytes_of(const TensorDir& dir) {
  std::array<int64_t, 3> most{};
  for (const auto& [name, tensor] : dir.tensors) {
    if (!is_expert_stack(tensor)) continue;
    const int part = name.find("gate") != std::string::npos ? 0
                     : name.find("up") != std::string::npos ? 1
                                                            : 2;
    most[part] = std::max(most[part], use_of(tensor, tensor.dims[2]).bytes);
  }
  int64_t bytes = 0;
  for (const int64_t part : most) bytes += slot_part_bytes(part);
  return bytes;
}

Limits with_chunk(Limits limits, int32_t chunk_tokens) {
  limits.chunk_tokens = chunk_tokens;
  return limits;
}

std::vector<KvBytes> kv_bytes_of(const ModelConfig& config, KvType kv, int64_t context,
                                 const Limits& limits) {
  KvCache cache(config, kv, context, limits);
  std::vector<KvBytes> layers;
  for (int32_t i = 0; i < config.layers; ++i) {
    const LayerCache& layer = cache.layer(i);
    layers.push_back(
        {static_cast<int64_t>(layer.window.bytes()),
         static_cast<int64_t>(layer.entries.rows.bytes()),
         static_cast<int64_t>(layer.index.rows.bytes()),
         static_cast<int64_t>(layer.entries.carry.bytes() + layer.index.carry.bytes())});
  }
  return layers;
}

MetadataValue metadata_value(const GgufValue& value) {
  return std::visit(
      [](const auto& stored) -> MetadataValue {
        using Stored = std::decay_t<decltype(stored)>;
        if constexpr (std::is_same_v<Stored, std::string> ||
                      std::is_same_v<Stored, std::vector<std::string>>) {
          return stored;
        } else if constexpr (std::is_floating_point_v<Stored>) {
          return static_cast<double>(stored);
        } else if constexpr (std::is_arithmetic_v<Stored>) {
          return static_cast<int64_t>(stored);
        } else if constexpr (std::is_same_v<Stored, std::vector<float>>) {
          return std::vector<double>(stored.begin(), stored.end());
        } else {
          return std::vector<int64_t>(stored.begin(), stored.end());
        }
      },
      value);
}

}  // namespace

ModelShape shape_of(const TensorDir& dir, const ModelConfig& config, const Kernels& kernels,
                    KvType kv, const Limits& limits) {
  ModelShape shape;
  shape.name = config.name;
  shape.context = config.context;
  shape.dim = config.dim;
  shape.vocab = config.vocab;
  shape.streams = config.streams;
  shape.heads = config.heads;
  shape.head_dim = config.head_dim;
  shape.window = config.window;
  shape.index_heads = config.index_heads;
  shape.index_dim = config.index_dim;
  shape.index_top_k = config.index_top_k;
  shape.experts = config.experts;
  shape.experts_used = config.experts_used;
  shape.expert_dim = config.expert_dim;
  shape.kv_value_bytes = hearth::kv_value_bytes(kv);
  for (int32_t i = 0; i < config.layers; ++i) {
    LayerShape layer;
    layer.ratio = static_cast<int32_t>(config.kinds[i]);
    layer.hashed = i < config.hash_layers;
    if (layer.hashed) layer.likely_use = table_use(dir, config, i);
    shape.layers.push_back(std::move(layer));
  }
  add_tensors(dir, shape);
  shape.padding = paddings(dir, config.layers);
  shape.slot_bytes = slot_bytes_of(dir);
  shape.kv_bytes = [=](int64_t context, int32_t chunk) {
    return kv_bytes_of(config, kv, context, with_chunk(limits, chunk));
  };
  shape.scratch_bytes = [config, limits, &kernels](int64_t context, int32_t chunk,
                                                   int32_t threads) {
    return Activations(config, kernels, context, threads, with_chunk(limits, chunk)).bytes();
  };
  return shape;
}

TensorDir released_header(const std::string& name, const std::string& quant,
                          const std::string& dense) {
  if (name != "flash" && name != "pro") {
    throw usage_error(fmt::format("'{}' is no released model", name), "MODEL",
                      "Name flash, pro or a GGUF file");
  }
  SynthOptions options;
  options.shape = released_shape(name == "pro" ? pro_shape() : flash_shape());
  options.quant = quant;
  options.dense = dense;
  options.holes = SynthHoles::kAll;
  const SynthLayout layout = synth_layout(options);
  TensorDir dir;
  for (const auto& [key, value] : layout.keys) dir.metadata[key] = metadata_value(value);
  dir.metadata["general.name"] = layout.shape.name;
  for (const SynthTensor& tensor : layout.tensors) {
    dir.tensors[tensor.name] = {tensor.name, tensor.type, tensor.dims,
                                0,           0,           static_cast<uint64_t>(tensor.bytes()),
                                nullptr};
  }
  return dir;
}

}  // namespace hearth
