// What an engine that computes on a device takes, known before anything is.
#pragma once

#include "base/limits.h"
#include "cpu_kernels/kernels.h"
#include "gpu_kernels/gpu_kernels.h"
#include "model/config.h"
#include "model/weights.h"
#include "offload/plan/model_shape.h"

namespace hearth {

struct DeviceModelParts {
  const ModelConfig& config;
  const ModelWeights& weights;
  const GpuKernels& gpu_kernels;
  const Kernels& kernels;  // tables outlive everything
  KvType kv;
  Limits limits;      // but for its chunk_tokens
  size_t page_bytes;  // the device's
};

// Beside the bytes that `shape` names. Routed experts whose matrices are no whole 16 bytes count
// with their alignment, all of them.
GpuNeeds gpu_needs(const ModelShape& shape, const DeviceModelParts& parts);

}  // namespace hearth
