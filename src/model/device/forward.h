// The forward pass on a device: what model/forward.h does, with all weights and caches in the
// device's memory. The host enqueues a step and waits only for its logits.
//
// One thread owns a DeviceForward. After construction nothing is allocated.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"
#include "model/device/inputs.h"
#include "model/device/weights.h"
#include "model/forward.h"

namespace hearth {

class DeviceForward {
 public:
  // `context` bounds the position of any token. The references must outlive the object. Throws
  // Error where the scratch memory does not fit.
  DeviceForward(Device& device, const ModelConfig& config, const DeviceWeights& weights,
                int64_t context, const Limits& limits);
  ~DeviceForward();

  int32_t chunk_tokens() const;
  int64_t bytes() const;  // taken on the device

  // As Forward::run; the segments' caches hold rows of one type. Without logits wanted, the device
  // may still be at work when it returns. Where `on_layer` is given it is told of layers that are
  // done, and the host runs ahead of them by one.
  std::span<const float> run(std::span<const DeviceSegment> segments, LogitRows wanted,
                             ForwardObserver* observer = nullptr,
                             const std::function<bool(int32_t)>& on_layer = nullptr);

 private:
  class Pass;
  std::unique_ptr<Pass> pass_;
};

// The bytes that a DeviceForward allocates; `rounds_streams` as of the weights.
int64_t device_forward_bytes(const ModelConfig& config, const GpuKernels& kernels, int64_t context,
                             const Limits& limits, bool rounds_streams);

}  // namespace hearth
