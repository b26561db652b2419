#include "model/device/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <string>

#include "base/error.h"
#include "cpu_kernels/kernels.h"
#include "model/device/slab.h"
#include "model/rope_table.h"

namespace hearth {
namespace {

int64_t matrix_bytes(const Matrix& matrix) {
  return matrix.rows * row_bytes(matrix.type, matrix.cols);
}

// Gives every weight its place and copies it there; without a device it only counts.
class Loader {
 public:
  Loader() = default;
  Loader(Device& device, unsigned char* memory)
      : slab_(memory), device_(&device), stream_(device.create_stream()) {}

  DeviceWeights load(const ModelConfig& config, const ModelWeights& weights, int32_t first_layer) {
    DeviceWeights placed{};
    placed.layers.resize(first_layer);
    for (int32_t i = first_layer; i < config.layers; ++i) {
      placed.layers.push_back(layer(config.kinds[i], weights.layers[i]));
    }
    placed.head_hyper = hyper(weights.head_hyper);
    placed.head_norm = values(weights.head_norm);
    placed.output = matrix(weights.output);
    placed.plain_frequencies = frequencies(config.rope_plain, config.rope_dim);
    placed.compressed_frequencies = frequencies(config.rope_compressed, config.rope_dim);
    placed.rounds_streams = rounds_streams(weights, first_layer);
    if (device_ != nullptr) device_->synchronize(stream_);
    return placed;
  }

  int64_t bytes() const { return slab_.bytes(); }
  const std::set<TensorType>& types() const { return types_; }

 private:
  DeviceLayer layer(LayerKind kind, const LayerWeights& weights) {
    DeviceLayer placed{};
    placed.attention_hyper = hyper(weights.attention_hyper);
    placed.attention = attention(kind, weights.attention);
    placed.moe_hyper = hyper(weights.moe_hyper);
    placed.moe = moe(weights.moe);
    return placed;
  }

  DeviceHyper hyper(const HyperWeights& weights) {
    return {matrix(weights.fn), values(weights.base), values(weights.scale)};
  }

  DeviceAttention attention(LayerKind kind, const AttentionWeights& weights) {
    DeviceAttention placed{};
    placed.norm = values(weights.norm);
    placed.q_a = matrix(weights.q_a);
    placed.q_a_norm = values(weights.q_a_norm);
    placed.q_b = matrix(weights.q_b);
    placed.kv = matrix(weights.kv);
    placed.kv_norm = values(weights.kv_norm);
    placed.sinks = values(weights.sinks);
    placed.output_a = matrix(weights.output_a);
    placed.output_b = matrix(weights.output_b);
    if (kind != LayerKind::kWindow) placed.compressor = compressor(weights.compressor);
    if (kind == LayerKind::kCsa) {
      placed.indexer = {matrix(weights.indexer.query), matrix(weights.indexer.head_mix),
                        compressor(weights.indexer.keys)};
    }
    return placed;
  }

  DeviceCompressor compressor(const CompressorWeights& weights) {
    return {matrix(weights.value), matrix(weights.gate), values(weights.ape), values(weights.norm)};
  }

  DeviceMoe moe(const MoeWeights& weights) {
    DeviceMoe placed{};
    placed.norm = values(weights.norm);
    placed.router = matrix(weights.router);
    placed.bias = values(weights.bias);
    if (!weights.hash_table.empty()) placed.hash_table = values(weights.hash_table);
    placed.shared = {only_expert(weights.shared.gate), only_expert(weights.shared.up),
                     only_expert(weights.shared.down)};
    return placed;
  }

  GpuExpertMatrices only_expert(const Matrix& host) {
    const Matrix placed = matrix(host);
    return {host.type, host.rows, host.cols, own(std::vector{placed.data}, pointers_)};
  }

  const double* frequencies(const RopeScaling& scaling, int32_t rope_dim) {
    return own(RopeTable(scaling, rope_dim).frequencies(), frequencies_);
  }

  Matrix matrix(const Matrix& host) {
    types_.insert(host.type);
    return {host.type, host.rows, host.cols, copy(std::span(host.data, matrix_bytes(host)))};
  }

  template <typename T>
  const T* values(const std::vector<T>& host) {
    return copy(std::span<const T>(host));
  }

  // Of values that nobody else keeps until they are copied.
  template <typename T>
  const T* own(std::vector<T> host, std::vector<std::vector<T>>& owned) {
    owned.push_back(std::move(host));
    return values(owned.back());
  }

  template <typename T>
  const T* copy(std::span<const T> host) {
    T* place = slab_.take<T>(std::ssize(host));
    if (device_ != nullptr) {
      device_->copy_to_device(place, host.data(), host.size_bytes(), stream_);
    }
    return place;
  }

  Slab slab_;
  Device* device_ = nullptr;
  Stream stream_;
  std::set<TensorType> types_;
  std::vector<std::vector<const unsigned char*>> pointers_;
  std::vector<std::vector<double>> frequencies_;
};

void check_shapes(const ModelConfig& config, Problems& problems) {
  if (config.head_dim > kGpuHeadDimMax || config.head_dim % 8 != 0) {
    problems.add(fmt::format("heads of {} values have no GPU kernel", config.head_dim));
  }
  if (config.index_dim % 8 != 0) {
    problems.add(fmt::format("index heads of {} values have no GPU kernel", config.index_dim));
  }
  if (config.streams > kGpuStreamsMax || config.dim % 4 != 0) {
    problems.add(
        fmt::format("{} streams of {} values have no GPU kernel", config.streams, config.dim));
  }
}

void check_experts(const ModelWeights& weights, size_t first_layer, Problems& problems) {
  for (size_t i = first_layer; i < weights.layers.size(); ++i) {
    const MoeWeights& moe = weights.layers[i].moe;
    const ExpertWeights& routed = moe.routed.stacks;
    if (routed.gate.type != routed.up.type || moe.shared.gate.type != moe.shared.up.type) {
      problems.add(fmt::format("gate and up of layer {} are stored in two types", i));
    }
  }
}

// Of what other parts bring to the device.
void add_types(const ModelWeights& weights, size_t first_layer, std::set<TensorType>& types) {
  if (first_layer == 0) types.insert(weights.embedding.type);
  for (size_t i = first_layer; i < weights.layers.size(); ++i) {
    const ExpertWeights& routed = weights.layers[i].moe.routed.stacks;
    for (const Matrix* stack : {&routed.gate, &routed.up, &routed.down}) types.insert(stack->type);
  }
}

void check_types(const GpuKernels& kernels, const std::set<TensorType>& types, Problems& problems) {
  for (const TensorType type : types) {
    if (kernels.multiplies(type)) continue;
    problems.add(fmt::format("weights stored as {} have no GPU kernel", type_info(type).name));
  }
}

}  // namespace

bool rounds_streams(const ModelWeights& weights, int32_t first_layer) {
  return reads_quantized(weights.head_hyper.fn.type) ||
         std::ranges::any_of(std::span(weights.layers).subspan(first_layer), [](const auto& layer) {
           return reads_quantized(layer.attention_hyper.fn.type) ||
                  reads_quantized(layer.moe_hyper.fn.type);
         });
}

int64_t device_weight_bytes(const ModelConfig& config, const ModelWeights& weights,
                            int32_t first_layer) {
  Loader counting;
  counting.load(config, weights, first_layer);
  return counting.bytes();
}

DeviceWeights upload_weights(Device& device, const ModelConfig& config, const ModelWeights& weights,
                             int32_t first_layer) {
  Loader counting;
  counting.load(config, weights, first_layer);
  Problems problems("the GPU");
  check_shapes(config, problems);
  check_experts(weights, first_layer, problems);
  std::set<TensorType> types = counting.types();
  add_types(weights, first_layer, types);
  check_types(device.kernels(), types, problems);
  problems.throw_if_any("Run this model without the GPU (--no-gpu)");

  DeviceBuffer memory = allocate_for(device, "the weights", counting.bytes());
  DeviceWeights placed = Loader(device, memory.data()).load(config, weights, first_layer);
  placed.memory = std::move(memory);
  return placed;
}

}  // namespace hearth
