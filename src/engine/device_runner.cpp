#include <algorithm>
#include <optional>
#include <vector>

#include "engine/runner.h"
#include "model/device/cache.h"
#include "model/device/forward.h"
#include "model/device/weights.h"
#include "model/kv_cache.h"

namespace hearth {
namespace {

class DeviceSequence : public Sequence {
 public:
  DeviceSequence(Device& device, const RunnerParts& parts, int64_t context, int32_t first_layer)
      : cache(device, parts.config, parts.kv, context, parts.limits, first_layer),
        first_layers(parts.config, parts.kv, context, parts.limits, first_layer) {}
  int64_t context() const override { return cache.context(); }
  int64_t bytes() const override { return cache.bytes() + first_layers.bytes(); }
  void clear() override { cache.position = first_layers.position = 0; }

  DeviceCache cache;
  KvCache first_layers;  // of the layers before the device's
};

// Without data for the layers that a device doesn't have: its tier then leaves them alone.
std::vector<LayerExperts> experts_from(const ModelWeights& weights, int32_t first_layer) {
  std::vector<LayerExperts> layers = layer_experts(weights);
  for (int32_t i = 0; i < first_layer; ++i) {
    ExpertWeights& stacks = layers[i].stacks;
    stacks.gate.data = stacks.up.data = stacks.down.data = nullptr;
  }
  return layers;
}

class DeviceRunner : public Runner {
 public:
  DeviceRunner(const RunnerParts& parts, Device& device, const VramShare& held,
               const LinkRates& rates, PinnedCache cache)
      : parts_(parts),
        first_layer_(held.first_layer),
        device_(device),
        weights_(upload_weights(device, parts.config, parts.weights, first_layer_)),
        tier_(device, experts_from(parts.weights, first_layer_), parts.config.experts, held.counts,
              {.order = held.order}),
        store_(layer_experts(parts.weights), parts.config.experts, parts.config.experts_used,
               parts.limits.chunk_tokens, std::move(cache.cache)),
        pinned_slots_(std::move(cache.slots)),
        forward_({device, parts.config, weights_, parts.weights.embedding, tier_, make_elsewhere(),
                  sending(rates), first_layer_},
                 parts.context, parts.limits) {
    if (first_layer_ == 0) return;
    first_layers_.emplace(parts.config, parts.weights, parts.kernels, parts.workers, parts.context,
                          parts.limits, store_);
  }

  std::unique_ptr<Sequence> new_sequence(int64_t context) override {
    return std::make_unique<DeviceSequence>(device_, parts_, context, first_layer_);
  }
  std::span<const float> run(std::span<const SequenceFeed> feeds, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) override {
    const std::optional<StreamRows> streams = run_first_layers(feeds, observer, on_layer);
    if (!streams) return {};
    segments_.clear();
    for (const SequenceFeed& feed : feeds) segments_.push_back(on_device(feed));
    return forward_.run(segments_, wanted, observer, on_layer, *streams);
  }
  LogitRow* run_to_row(const SequenceFeed& feed,
                       const std::function<bool(int32_t)>& on_layer) override {
    const std::optional<StreamRows> streams = run_first_layers({&feed, 1}, nullptr, on_layer);
    if (!streams) return nullptr;
    return forward_.run_to_row(on_device(feed), on_layer, *streams);
  }
  std::optional<ReadFailure> take_failure() override { return store_.take_failure(); }
  ExpertCache* cache() override { return store_.cache(); }
  double guess_precision(int32_t layer) const override {
    return layer < first_layer_ ? first_layers_->guess_precision(layer) : 0;
  }
  StageClock& clock() override { return forward_.clock(); }
  void set_timing(bool on) override { forward_.set_timing(on); }
  double vram_hit_rate() const override { return tier_.stats().hit_rate(); }
  void clear_figures() override {
    clock().clear();
    tier_.clear_stats();
    if (cache() != nullptr) cache()->clear_stats();
  }
  int64_t scratch_bytes() const override {
    return forward_.pinned_bytes() + (elsewhere_ ? elsewhere_->bytes() : 0) +
           (first_layers_ ? first_layers_->scratch_bytes() : 0);
  }

 private:
  // Null where the device holds all experts of its layers.
  HostExperts* make_elsewhere() {
    bool holds_all = true;
    for (int32_t i = first_layer_; i < parts_.config.layers; ++i) holds_all &= tier_.holds_all(i);
    if (holds_all) return nullptr;
    elsewhere_.emplace(parts_.config, parts_.kernels, parts_.workers, parts_.limits, store_);
    return &*elsewhere_;
  }

  std::optional<ExpertSending> sending(const LinkRates& rates) const {
    if (!elsewhere_) return std::nullopt;
    return ExpertSending{layer_experts(parts_.weights), rates};
  }

  static DeviceSegment on_device(const SequenceFeed& feed) {
    return {&static_cast<DeviceSequence*>(feed.sequence)->cache, feed.tokens};
  }

  // What the layers before the device's leave, no rows where there are none of them; nothing where
  // they end early.
  std::optional<StreamRows> run_first_layers(std::span<const SequenceFeed> feeds,
                                             ForwardObserver* observer,
                                             const std::function<bool(int32_t)>& on_layer) {
    if (!first_layers_) return StreamRows{};
    first_segments_.clear();
    for (const SequenceFeed& feed : feeds) {
      KvCache& cache = static_cast<DeviceSequence*>(feed.sequence)->first_layers;
      first_segments_.push_back({&cache, feed.tokens});
    }
    const auto streams =
        first_layers_->run_layers(first_segments_, first_layer_, observer, on_layer);
    clock()[Stage::kHostLayers] += first_layers_->clock().sum();
    first_layers_->clock().clear();
    return streams;
  }

  const RunnerParts parts_;
  const int32_t first_layer_;
  Device& device_;
  const DeviceWeights weights_;
  VramTier tier_;
  ExpertStore store_;
  PinnedRange pinned_slots_;  // of its cache, which it goes before
  std::optional<HostExperts> elsewhere_;
  DeviceForward forward_;
  std::vector<DeviceSegment> segments_;
  std::optional<Forward> first_layers_;
  std::vector<Segment> first_segments_;
};

}  // namespace

std::unique_ptr<Runner> make_device_runner(const RunnerParts& parts, Device& device,
                                           const VramShare& held, const LinkRates& rates,
                                           PinnedCache cache) {
  return std::make_unique<DeviceRunner>(parts, device, held, rates, std::move(cache));
}

}  // namespace hearth
