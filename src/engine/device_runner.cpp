#include <vector>

#include "engine/runner.h"
#include "model/device/cache.h"
#include "model/device/forward.h"
#include "model/device/weights.h"

namespace hearth {
namespace {

class DeviceSequence : public Sequence {
 public:
  DeviceSequence(Device& device, const RunnerParts& parts, int64_t context, EntriesIn entries)
      : cache(device, {parts.config, parts.kv, context, parts.limits, entries}) {}
  int64_t context() const override { return cache.context(); }
  int64_t bytes() const override { return cache.bytes_in_all(); }
  void clear() override { cache.position = 0; }

  DeviceCache cache;
};

class DeviceRunner : public Runner {
 public:
  DeviceRunner(const RunnerParts& parts, Device& device, const VramPlaces& places,
               const LinkRates& rates, PinnedCache cache)
      : parts_(parts),
        device_(device),
        entries_(places.entries),
        weights_(upload_weights(device, parts.config, parts.weights)),
        tier_(device, layer_experts(parts.weights), parts.config.experts, places.counts,
              {.order = places.order}),
        elsewhere_(make_elsewhere(std::move(cache.cache))),
        pinned_slots_(std::move(cache.slots)),
        forward_({device, parts.config, weights_, parts.weights.embedding, tier_, elsewhere_.get(),
                  sending(rates)},
                 parts.context, parts.limits) {}

  std::unique_ptr<Sequence> new_sequence(int64_t context) override {
    return std::make_unique<DeviceSequence>(device_, parts_, context, entries_);
  }
  std::span<const float> run(std::span<const SequenceFeed> feeds, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) override {
    segments_.clear();
    for (const SequenceFeed& feed : feeds) {
      segments_.push_back({&static_cast<DeviceSequence*>(feed.sequence)->cache, feed.tokens});
    }
    return forward_.run(segments_, wanted, observer, on_layer);
  }
  LogitRow* run_to_row(const SequenceFeed& feed,
                       const std::function<bool(int32_t)>& on_layer) override {
    return forward_.run_to_row({&static_cast<DeviceSequence*>(feed.sequence)->cache, feed.tokens},
                               on_layer);
  }
  std::optional<ReadFailure> take_failure() override {
    return elsewhere_ ? elsewhere_->store().take_failure() : std::nullopt;
  }
  ExpertCache* cache() override { return elsewhere_ ? elsewhere_->store().cache() : nullptr; }
  double guess_precision(int32_t) const override { return 0; }
  StageClock& clock() override { return forward_.clock(); }
  void set_timing(bool on) override { forward_.set_timing(on); }
  double vram_hit_rate() const override { return tier_.stats().hit_rate(); }
  void clear_figures() override {
    clock().clear();
    tier_.clear_stats();
    if (cache() != nullptr) cache()->clear_stats();
  }
  int64_t scratch_bytes() const override {
    return forward_.pinned_bytes() + (elsewhere_ ? elsewhere_->bytes() : 0);
  }

 private:
  std::unique_ptr<HostExperts> make_elsewhere(std::unique_ptr<ExpertCache> cache) const {
    bool holds_all = true;
    for (int32_t i = 0; i < parts_.config.layers; ++i) holds_all &= tier_.holds_all(i);
    if (holds_all) return nullptr;
    return std::make_unique<HostExperts>(parts_.config, layer_experts(parts_.weights),
                                         parts_.kernels, parts_.workers, parts_.limits,
                                         std::move(cache));
  }

  std::optional<ExpertSending> sending(const LinkRates& rates) const {
    if (!elsewhere_) return std::nullopt;
    return ExpertSending{layer_experts(parts_.weights), rates};
  }

  const RunnerParts parts_;
  Device& device_;
  const EntriesIn entries_;
  const DeviceWeights weights_;
  VramTier tier_;
  const std::unique_ptr<HostExperts> elsewhere_;
  PinnedRange pinned_slots_;  // of its cache, which it goes before
  DeviceForward forward_;
  std::vector<DeviceSegment> segments_;
};

}  // namespace

std::unique_ptr<Runner> make_device_runner(const RunnerParts& parts, Device& device,
                                           const VramPlaces& places, const LinkRates& rates,
                                           PinnedCache cache) {
  return std::make_unique<DeviceRunner>(parts, device, places, rates, std::move(cache));
}

}  // namespace hearth
