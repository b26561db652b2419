// The forward pass on a device: what model/forward.h does, with weights and caches in the device's
// memory. The host enqueues a step and waits only for its logits and, in layers whose experts
// aren't all there, for the picks: it computes the others while the device computes its own.
//
// One thread owns a DeviceForward. After construction nothing is allocated but what captured steps
// take (model/device/replay.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"
#include "model/device/expert_stream.h"
#include "model/device/inputs.h"
#include "model/device/weights.h"
#include "model/forward.h"
#include "model/host_experts.h"
#include "model/logit_row.h"
#include "offload/vram/vram_tier.h"

namespace hearth {

// What a DeviceForward runs; all of it must outlive the object.
struct DeviceModel {
  Device& device;
  const ModelConfig& config;
  const DeviceWeights& weights;
  Matrix embedding;        // in the host's memory; not read where streams come instead
  VramTier& routed;        // follows the steps
  HostExperts* elsewhere;  // computes what `routed` doesn't hold; null where that is nothing
  // How experts come over the link, where the host need not compute them all.
  std::optional<ExpertSending> sending = {};
  // The layers before it are the host's, whose streams come with each step.
  int32_t first_layer = 0;
};

class DeviceForward {
 public:
  // `context` bounds the position of any token. Throws Error where the scratch memory does not fit.
  DeviceForward(const DeviceModel& model, int64_t context, const Limits& limits);
  ~DeviceForward();

  // Between steps, as VramTier::shrink of the routed experts.
  int64_t give_back_experts(int64_t bytes);

  int32_t chunk_tokens() const;
  int64_t bytes() const;         // taken on the device
  int64_t pinned_bytes() const;  // taken on the host
  // What steps read and compute, and the time of the experts on the host, which passes beside the
  // others'. The stages on the device have times only of steps with timing: these are not replayed,
  // so they take longer, and end when the device is done.
  StageClock& clock();
  void set_timing(bool on);

  // As Forward::run; the segments' caches hold rows of one type. Where an expert can't be read the
  // run ends early, and the store of `elsewhere` tells. Without logits wanted, the device may still
  // be at work when it returns. Where `on_layer` is given it is told of layers that are
  // done, and the host runs ahead of them by one. `streams`: of the segments' rows, as the host's
  // layers left them; where there are none of these it is not read.
  std::span<const float> run(std::span<const DeviceSegment> segments, LogitRows wanted,
                             ForwardObserver* observer = nullptr,
                             const std::function<bool(int32_t)>& on_layer = nullptr,
                             const StreamRows& streams = {});
  // The logits of the segment's last token, which stay on the device but for what is asked for;
  // null where the run ends early. Valid until the next run.
  LogitRow* run_to_row(const DeviceSegment& segment,
                       const std::function<bool(int32_t)>& on_layer = nullptr,
                       const StreamRows& streams = {});

 private:
  class Pass;
  std::unique_ptr<Pass> pass_;
};

// What its sizes follow from, beside the config.
struct DeviceTraits {
  Matrix embedding;  // its data is not read; without columns where streams come instead
  bool rounds_streams;
};
DeviceTraits traits_of(const ModelWeights& weights, int32_t first_layer = 0);

// The bytes that a DeviceForward allocates on the device, and pinned in the host's memory.
int64_t device_forward_bytes(const ModelConfig& config, const GpuKernels& kernels,
                             const DeviceTraits& traits, int64_t context, const Limits& limits);
int64_t device_forward_pinned_bytes(const ModelConfig& config, const DeviceTraits& traits,
                                    const Limits& limits);

}  // namespace hearth
