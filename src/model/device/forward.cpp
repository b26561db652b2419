#include "model/device/forward.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"
#include "model/device/slab.h"
#include "model/device/step.h"

namespace hearth {
namespace {

int64_t scratch_bytes(const ModelConfig& config, const GpuKernels& kernels,
                      const DeviceSizes& sizes) {
  Slab counting;
  take_scratch(counting, config, kernels, sizes);
  return counting.bytes();
}

}  // namespace

class DeviceForward::Pass {
 public:
  Pass(Device& device, const ModelConfig& config, const DeviceWeights& weights, int64_t context,
       const Limits& limits)
      : device_(device),
        config_(config),
        weights_(weights),
        context_(context),
        limits_(limits),
        stream_(device.create_stream()),
        layer_done_{device.create_event(), device.create_event()},
        inputs_(device, config, limits) {
    const DeviceSizes sizes{context, limits_, weights.rounds_streams};
    memory_ = allocate_for(device, "activations", scratch_bytes(config, device.kernels(), sizes));
    Slab slab(memory_.data());
    act_ = take_scratch(slab, config, device.kernels(), sizes);
    logits_ = device.allocate_pinned(sizes.logit_rows() * config.vocab * sizeof(float));
    list_group_rows();
  }

  std::span<const float> run(std::span<const DeviceSegment> segments, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) {
    check_segments(segments);
    const DeviceBatch& batch = inputs_.upload(segments, wanted, stream_);
    HEARTH_CHECK(batch.wanted <= limits_.logit_rows);
    const DeviceStep step{config_, weights_, device_.kernels(), stream_.handle(), act_, batch};
    embed(step);
    if (observer != nullptr) show(step, -1, *observer);
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      run_layer(step, layer);
      if (observer != nullptr) show(step, layer, *observer);
      if (on_layer && !report(layer, on_layer)) return {};
    }
    if (on_layer && !report(config_.layers, on_layer)) return {};
    for (const DeviceSegment& segment : segments) {
      segment.cache->position += std::ssize(segment.tokens);
    }
    if (wanted == LogitRows::kNone) return {};
    head(step);
    return logits(batch.wanted);
  }

  int32_t chunk_tokens() const { return limits_.chunk_tokens; }
  int64_t bytes() const { return inputs_.bytes() + static_cast<int64_t>(memory_.bytes()); }

 private:
  void check_segments(std::span<const DeviceSegment> segments) const {
    int64_t n = 0;
    for (const DeviceSegment& segment : segments) {
      n += std::ssize(segment.tokens);
      HEARTH_CHECK(segment.cache->position + std::ssize(segment.tokens) <=
                   std::min(segment.cache->context(), context_));
      for (const int32_t token : segment.tokens) HEARTH_CHECK(token >= 0 && token < config_.vocab);
    }
    HEARTH_CHECK(n > 0 && n <= limits_.chunk_tokens);
  }

  void run_layer(const DeviceStep& step, int32_t layer) {
    const DeviceLayer& weights = weights_.layers[layer];
    enter_hyper_connection(step, weights.attention_hyper, weights.attention.norm);
    attention(step, layer);
    leave_hyper_connection(step);

    enter_hyper_connection(step, weights.moe_hyper, weights.moe.norm);
    route(step, weights.moe);
    experts(step, layer, weights.moe);
    leave_hyper_connection(step);
  }

  // Layer number `layer` is enqueued or, behind the last, none: waits for the one before it.
  bool report(int32_t layer, const std::function<bool(int32_t)>& on_layer) {
    if (layer < config_.layers) device_.record(layer_done_[layer % 2], stream_);
    if (layer == 0) return true;
    device_.synchronize(layer_done_[(layer - 1) % 2]);
    return on_layer(layer);
  }

  void show(const DeviceStep& step, int32_t layer, ForwardObserver& observer) {
    const int64_t n = step.batch.n, width = act_.streams.width;
    std::vector<float> streams(n * width);
    std::vector<int32_t> picks(n * config_.experts_used);
    const auto bytes_of = [](const auto& values) { return std::span(values).size_bytes(); };
    device_.copy_to_host(streams.data(), act_.streams.values, bytes_of(streams), stream_);
    if (layer >= 0) device_.copy_to_host(picks.data(), act_.picks, bytes_of(picks), stream_);
    device_.synchronize(stream_);
    if (layer >= 0) observer.picks(layer, picks.data(), n);
    observer.streams(layer, streams.data(), width, n);
  }

  std::span<const float> logits(int64_t rows) {
    const size_t count = static_cast<size_t>(rows * config_.vocab);
    device_.copy_to_host(logits_.data(), act_.logits, count * sizeof(float), stream_);
    device_.synchronize(stream_);
    return {logits_.as<float>(), count};
  }

  // Row i * groups + g of the attention's output is the one of group g.
  void list_group_rows() {
    std::vector<int32_t> rows;
    for (int32_t g = 0; g < config_.output_groups; ++g) {
      for (int32_t i = 0; i < limits_.chunk_tokens; ++i) {
        rows.push_back(i * config_.output_groups + g);
      }
    }
    device_.copy_to_device(act_.group_rows, rows.data(), rows.size() * sizeof(int32_t), stream_);
    device_.synchronize(stream_);
  }

  Device& device_;
  const ModelConfig& config_;
  const DeviceWeights& weights_;
  const int64_t context_;
  const Limits limits_;
  Stream stream_;
  std::array<Event, 2> layer_done_;  // of the layers of even and of odd number
  StepInputs inputs_;
  DeviceBuffer memory_;
  DeviceScratch act_{};
  PinnedBuffer logits_;
};

DeviceForward::DeviceForward(Device& device, const ModelConfig& config,
                             const DeviceWeights& weights, int64_t context, const Limits& limits)
    : pass_(std::make_unique<Pass>(device, config, weights, context, limits)) {}
DeviceForward::~DeviceForward() = default;

int32_t DeviceForward::chunk_tokens() const { return pass_->chunk_tokens(); }
int64_t DeviceForward::bytes() const { return pass_->bytes(); }

std::span<const float> DeviceForward::run(std::span<const DeviceSegment> segments, LogitRows wanted,
                                          ForwardObserver* observer,
                                          const std::function<bool(int32_t)>& on_layer) {
  return pass_->run(segments, wanted, observer, on_layer);
}

int64_t device_forward_bytes(const ModelConfig& config, const GpuKernels& kernels, int64_t context,
                             const Limits& limits, bool rounds_streams) {
  return step_input_bytes(config, limits) +
         scratch_bytes(config, kernels, {context, limits, rounds_streams});
}

}  // namespace hearth
