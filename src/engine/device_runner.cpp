#include <algorithm>
#include <vector>

#include "engine/runner.h"
#include "model/device/cache.h"
#include "model/device/forward.h"
#include "model/device/weights.h"

namespace hearth {
namespace {

class DeviceSequence : public Sequence {
 public:
  DeviceSequence(Device& device, const RunnerParts& parts, int64_t context)
      : cache(device, parts.config, parts.kv, context, parts.limits) {}
  int64_t context() const override { return cache.context(); }
  int64_t bytes() const override { return cache.bytes(); }
  void clear() override { cache.position = 0; }

  DeviceCache cache;
};

class DeviceRunner : public Runner {
 public:
  DeviceRunner(const RunnerParts& parts, Device& device, const VramExperts& held,
               const LinkRates& rates, PinnedCache cache)
      : parts_(parts),
        device_(device),
        weights_(upload_weights(device, parts.config, parts.weights)),
        elsewhere_(make_elsewhere(held.counts, std::move(cache.cache))),
        pinned_slots_(std::move(cache.slots)),
        tier_(device, layer_experts(parts.weights), parts.config.experts, held.counts,
              {.order = held.order, .cache = this->cache()}),
        forward_({device, parts.config, weights_, parts.weights.embedding, tier_, elsewhere_.get(),
                  sending(rates)},
                 parts.context, parts.limits) {}

  std::unique_ptr<Sequence> new_sequence(int64_t context) override {
    return std::make_unique<DeviceSequence>(device_, parts_, context);
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
  std::optional<ReadFailure> load_experts(
      std::span<const int32_t> in_cache,
      const std::function<void(int64_t, int64_t)>& on_load) override {
    if (const auto failure = tier_.load(on_load)) return failure;
    return cache()->load(in_cache, on_load);
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
  // `held` [layers]: experts on the device.
  std::unique_ptr<HostExperts> make_elsewhere(const std::vector<int32_t>& held,
                                              std::unique_ptr<ExpertCache> cache) const {
    const auto is_whole = [&](int32_t experts) { return experts == parts_.config.experts; };
    if (std::ranges::all_of(held, is_whole)) return nullptr;
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
  const DeviceWeights weights_;
  const std::unique_ptr<HostExperts> elsewhere_;
  PinnedRange pinned_slots_;  // of its cache, which it goes before
  VramTier tier_;             // before both: it may be copying out of the slots
  DeviceForward forward_;
  std::vector<DeviceSegment> segments_;
};

}  // namespace

std::unique_ptr<Runner> make_device_runner(const RunnerParts& parts, Device& device,
                                           const VramExperts& held, const LinkRates& rates,
                                           PinnedCache cache) {
  return std::make_unique<DeviceRunner>(parts, device, held, rates, std::move(cache));
}

}  // namespace hearth
