// A loaded model's weights in the memory of a device, as the kernels read them: all but the
// embedding, of which a step brings its tokens' rows along, the routed experts, which are a
// VramTier's, and the layers before `first_layer`, which the host computes.
#pragma once

#include <cstdint>
#include <vector>

#include "device/device.h"
#include "model/config.h"
#include "model/weights.h"

namespace hearth {

// All pointers are the device's; shapes as in model/weights.h.
struct DeviceHyper {
  Matrix fn;
  const float* base;
  const float* scale;
};

struct DeviceCompressor {
  Matrix value;
  Matrix gate;
  const float* ape;
  const float* norm;
};

struct DeviceIndexer {
  Matrix query;
  Matrix head_mix;
  DeviceCompressor keys;
};

struct DeviceAttention {
  const float* norm;
  Matrix q_a;
  const float* q_a_norm;
  Matrix q_b;
  Matrix kv;
  const float* kv_norm;
  const float* sinks;
  Matrix output_a;
  Matrix output_b;
  DeviceCompressor compressor;  // CSA and HCA layers
  DeviceIndexer indexer;        // CSA layers
};

// Null `data` for those that lie elsewhere.
struct DeviceExperts {
  GpuExpertMatrices gate;
  GpuExpertMatrices up;
  GpuExpertMatrices down;
};

struct DeviceMoe {
  const float* norm;
  Matrix router;
  const float* bias;          // learned routing only
  const int32_t* hash_table;  // hash-routed layers only, else null
  DeviceExperts shared;       // of one expert
};

struct DeviceLayer {
  DeviceHyper attention_hyper;
  DeviceAttention attention;
  DeviceHyper moe_hyper;
  DeviceMoe moe;
};

struct DeviceWeights {
  std::vector<DeviceLayer> layers;  // empty ones for those that aren't here
  DeviceHyper head_hyper;
  const float* head_norm;
  Matrix output;
  const double* plain_frequencies;  // [rope_dim / 2] radians a position
  const double* compressed_frequencies;
  bool rounds_streams;  // as of the function below

  DeviceBuffer memory;
};

// Whether a matrix of the hyper-connections reads rounded activations, which takes scratch.
bool rounds_streams(const ModelWeights& weights, int32_t first_layer = 0);

// The bytes that upload_weights allocates.
int64_t device_weight_bytes(const ModelConfig& config, const ModelWeights& weights,
                            int32_t first_layer = 0);

// Throws Error where they do not fit and where the device has no kernels for a type or a shape, of
// routed experts and embedding too. When it returns all is copied.
DeviceWeights upload_weights(Device& device, const ModelConfig& config, const ModelWeights& weights,
                             int32_t first_layer = 0);

}  // namespace hearth
