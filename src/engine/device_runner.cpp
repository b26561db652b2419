#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "engine/runner.h"
#include "model/device/cache.h"
#include "model/device/forward.h"
#include "model/device/vram_border.h"
#include "model/device/weights.h"

namespace hearth {
namespace {

// Beside experts that lie elsewhere a cache grows, by what `border` grants it.
class DeviceSequence : public Sequence {
 public:
  DeviceSequence(Device& device, const DeviceCacheShape& shape, VramBorder* border)
      : border_(border) {
    using Room = DeviceCache::Room;
    if (border_ != nullptr) {
      border_->make_room(DeviceCacheLayout(shape).bytes_at(0, device.page_bytes()));
    }
    cache_.emplace(device, shape, border_ != nullptr ? Room::kAsReached : Room::kWhole);
    if (border_ != nullptr) border_->add(*cache_);
  }
  ~DeviceSequence() override {
    if (border_ == nullptr) return;
    border_->remove(*cache_);
    cache_.reset();
    border_->refill();
  }
  DeviceSequence(const DeviceSequence&) = delete;
  DeviceSequence& operator=(const DeviceSequence&) = delete;

  int64_t context() const override { return cache_->context(); }
  int64_t bytes() const override { return cache_->bytes_in_all(); }
  void clear() override {
    cache_->clear();
    if (border_ != nullptr) border_->refill();
  }
  // Before a step with so many tokens.
  DeviceCache* reach(size_t tokens) {
    if (border_ != nullptr) {
      border_->reach(*cache_, cache_->position + static_cast<int64_t>(tokens));
    }
    return &*cache_;
  }

 private:
  VramBorder* const border_;
  std::optional<DeviceCache> cache_;
};

class DeviceRunner : public Runner {
 public:
  DeviceRunner(const RunnerParts& parts, Device& device, const VramPlaces& places,
               const LinkRates& rates, PinnedCache cache)
      : parts_(parts),
        device_(device),
        entries_(places.entries),
        weights_(upload_weights(device, parts.config, parts.weights)),
        elsewhere_(make_elsewhere(places, std::move(cache.cache))),
        pinned_slots_(std::move(cache.slots)),
        tier_(device, layer_experts(parts.weights), parts.config.experts, lent_counts(places),
              {.order = places.order,
               .slab_bytes = parts.limits.vram_slab_bytes,
               .cache = this->cache()}),
        forward_({device, parts.config, weights_, parts.weights.embedding, tier_, elsewhere_.get(),
                  sending(rates)},
                 parts.context, parts.limits) {
    if (elsewhere_ == nullptr) return;
    const int64_t caches =
        places.sessions * device_cache_bytes(cache_shape(parts.context), device.page_bytes());
    const int64_t experts =
        vram_tier_bytes(layer_experts(parts.weights), parts.config.experts, places.counts);
    border_.emplace(forward_, tier_, caches + experts + places.spare_bytes);
  }

  std::unique_ptr<Sequence> new_sequence(int64_t context) override {
    return std::make_unique<DeviceSequence>(device_, cache_shape(context),
                                            border_ ? &*border_ : nullptr);
  }
  std::span<const float> run(std::span<const SequenceFeed> feeds, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) override {
    segments_.clear();
    for (const SequenceFeed& feed : feeds) {
      segments_.push_back(segment_of(feed));
    }
    return forward_.run(segments_, wanted, observer, on_layer);
  }
  LogitRow* run_to_row(const SequenceFeed& feed,
                       const std::function<bool(int32_t)>& on_layer) override {
    return forward_.run_to_row(segment_of(feed), on_layer);
  }
  std::optional<ReadFailure> take_failure() override {
    return elsewhere_ ? elsewhere_->store().take_failure() : std::nullopt;
  }
  std::optional<ReadFailure> load_experts(
      std::span<const int32_t> in_cache,
      const std::function<void(int64_t, int64_t)>& on_load) override {
    if (const auto failure = tier_.load(on_load)) return failure;
    // Where caches are yet to grow VRAM has more than is planned.
    std::vector<int32_t> others;
    std::ranges::copy_if(in_cache, std::back_inserter(others), [&](int32_t key) {
      return !tier_.holds(key / parts_.config.experts, key % parts_.config.experts);
    });
    return cache()->load(others, on_load);
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
  static DeviceSegment segment_of(const SequenceFeed& feed) {
    return {static_cast<DeviceSequence*>(feed.sequence)->reach(feed.tokens.size()), feed.tokens};
  }

  DeviceCacheShape cache_shape(int64_t context) const {
    return {parts_.config, parts_.kv, context, parts_.limits, entries_};
  }

  // The planned experts of each layer, and those that lie where caches are yet to grow.
  std::vector<int32_t> lent_counts(const VramPlaces& places) const {
    const DeviceCacheShape shape = cache_shape(parts_.context);
    const int64_t lent = device_cache_bytes(shape, device_.page_bytes()) -
                         first_device_cache_bytes(shape, device_.page_bytes());
    return with_lent_slots(layer_experts(parts_.weights), parts_.config.experts, places.counts,
                           places.sessions * lent);
  }

  std::unique_ptr<HostExperts> make_elsewhere(const VramPlaces& places,
                                              std::unique_ptr<ExpertCache> cache) const {
    const auto is_whole = [&](int32_t count) { return count == parts_.config.experts; };
    if (std::ranges::all_of(places.counts, is_whole)) return nullptr;
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
  const std::unique_ptr<HostExperts> elsewhere_;
  PinnedRange pinned_slots_;  // of its cache, which it goes before
  VramTier tier_;             // before both: it may be copying out of the slots
  DeviceForward forward_;
  std::optional<VramBorder> border_;  // where experts lie elsewhere
  std::vector<DeviceSegment> segments_;
};

}  // namespace

std::unique_ptr<Runner> make_device_runner(const RunnerParts& parts, Device& device,
                                           const VramPlaces& places, const LinkRates& rates,
                                           PinnedCache cache) {
  return std::make_unique<DeviceRunner>(parts, device, places, rates, std::move(cache));
}

}  // namespace hearth
