#include <algorithm>
#include <iterator>
#include <optional>
#include <vector>

#include "engine/runner.h"
#include "model/device/cache.h"
#include "model/device/forward.h"
#include "model/device/vram_border.h"
#include "model/device/weights.h"
#include "model/kv_cache.h"

namespace hearth {
namespace {

// Beside experts that lie elsewhere the device's cache grows, by what `border` grants it.
class DeviceSequence : public Sequence {
 public:
  DeviceSequence(Device& device, const DeviceCacheShape& shape, VramBorder* border)
      : border_(border),
        first_layers_(shape.config, shape.type, shape.context, shape.limits, shape.first_layer) {
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
  int64_t bytes() const override { return cache_->bytes_in_all() + first_layers_.bytes(); }
  void clear() override {
    first_layers_.position = 0;
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
  KvCache* first_layers() { return &first_layers_; }

 private:
  VramBorder* const border_;
  KvCache first_layers_;  // of the layers before the device's
  std::optional<DeviceCache> cache_;
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
  DeviceRunner(const RunnerParts& parts, Device& device, const VramShare& share,
               const LinkRates& rates, PinnedCache cache)
      : parts_(parts),
        first_layer_(share.first_layer),
        entries_(share.entries),
        device_(device),
        weights_(upload_weights(device, parts.config, parts.weights, first_layer_)),
        experts_(experts_from(parts.weights, first_layer_)),
        store_(layer_experts(parts.weights), parts.config.experts, parts.config.experts_used,
               parts.limits.chunk_tokens, std::move(cache.cache)),
        pinned_slots_(std::move(cache.slots)),
        tier_(device, experts_, parts.config.experts, lent_counts(share),
              {.order = share.order,
               .slab_bytes = parts.limits.vram_slab_bytes,
               .cache = store_.cache()}),
        forward_({device, parts.config, weights_, parts.weights.embedding, tier_,
                  make_elsewhere(share), sending(rates), first_layer_},
                 parts.context, parts.limits) {
    if (elsewhere_) {
      const int64_t caches =
          share.sessions * device_cache_bytes(cache_shape(parts.context), device.page_bytes());
      const int64_t experts = vram_tier_bytes(experts_, parts.config.experts, share.counts);
      border_.emplace(forward_, tier_, caches + experts + share.spare_bytes);
    }
    if (first_layer_ > 0) {
      first_layers_.emplace(parts.config, parts.weights, parts.kernels, parts.workers,
                            parts.context, parts.limits, store_);
    }
  }

  std::unique_ptr<Sequence> new_sequence(int64_t context) override {
    return std::make_unique<DeviceSequence>(device_, cache_shape(context),
                                            border_ ? &*border_ : nullptr);
  }
  std::span<const float> run(std::span<const SequenceFeed> feeds, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) override {
    reach(feeds);
    const std::optional<StreamRows> streams = run_first_layers(feeds, observer, on_layer);
    if (!streams) return {};
    return forward_.run(segments_, wanted, observer, on_layer, *streams);
  }
  LogitRow* run_to_row(const SequenceFeed& feed,
                       const std::function<bool(int32_t)>& on_layer) override {
    reach({&feed, 1});
    const std::optional<StreamRows> streams = run_first_layers({&feed, 1}, nullptr, on_layer);
    if (!streams) return nullptr;
    return forward_.run_to_row(segments_.front(), on_layer, *streams);
  }
  std::optional<ReadFailure> take_failure() override { return store_.take_failure(); }
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
  DeviceCacheShape cache_shape(int64_t context) const {
    return {parts_.config, parts_.kv, context, parts_.limits, entries_, first_layer_};
  }

  // The planned experts of each layer, and those that lie where caches are yet to grow.
  std::vector<int32_t> lent_counts(const VramShare& share) const {
    const DeviceCacheShape shape = cache_shape(parts_.context);
    const int64_t lent = device_cache_bytes(shape, device_.page_bytes()) -
                         first_device_cache_bytes(shape, device_.page_bytes());
    return with_lent_slots(experts_, parts_.config.experts, share.counts, share.sessions * lent);
  }

  // Null where the device has all experts of its layers for good.
  HostExperts* make_elsewhere(const VramShare& share) {
    const auto is_whole = [&](int32_t count) { return count == parts_.config.experts; };
    const auto counts = std::span(share.counts).subspan(first_layer_);
    if (std::ranges::all_of(counts, is_whole)) return nullptr;
    elsewhere_.emplace(parts_.config, parts_.kernels, parts_.workers, parts_.limits, store_);
    return &*elsewhere_;
  }

  std::optional<ExpertSending> sending(const LinkRates& rates) const {
    if (!elsewhere_) return std::nullopt;
    return ExpertSending{layer_experts(parts_.weights), rates};
  }

  // Before any layer runs: where memory is lacking, the sequences stay as they are.
  void reach(std::span<const SequenceFeed> feeds) {
    segments_.clear();
    for (const SequenceFeed& feed : feeds) {
      auto* sequence = static_cast<DeviceSequence*>(feed.sequence);
      segments_.push_back({sequence->reach(feed.tokens.size()), feed.tokens});
    }
  }

  // What the layers before the device's leave, no rows where there are none of them; nothing where
  // they end early. Where the step before brought no logits, copies may still be reading experts
  // that the store lent to its last layer and now reads over: nothing follows from that layer.
  std::optional<StreamRows> run_first_layers(std::span<const SequenceFeed> feeds,
                                             ForwardObserver* observer,
                                             const std::function<bool(int32_t)>& on_layer) {
    if (!first_layers_) return StreamRows{};
    first_segments_.clear();
    for (const SequenceFeed& feed : feeds) {
      auto* sequence = static_cast<DeviceSequence*>(feed.sequence);
      first_segments_.push_back({sequence->first_layers(), feed.tokens});
    }
    const auto streams =
        first_layers_->run_layers(first_segments_, first_layer_, observer, on_layer);
    clock()[Stage::kHostLayers] += first_layers_->clock().sum();
    first_layers_->clock().clear();
    return streams;
  }

  const RunnerParts parts_;
  const int32_t first_layer_;
  const EntriesIn entries_;
  Device& device_;
  const DeviceWeights weights_;
  const std::vector<LayerExperts> experts_;  // of the device's layers
  ExpertStore store_;
  PinnedRange pinned_slots_;  // of its cache, which it goes before
  std::optional<HostExperts> elsewhere_;
  VramTier tier_;  // before the slots: it may be copying out of them
  DeviceForward forward_;
  std::optional<VramBorder> border_;  // where experts lie elsewhere
  std::vector<DeviceSegment> segments_;
  std::optional<Forward> first_layers_;
  std::vector<Segment> first_segments_;
};

}  // namespace

std::unique_ptr<Runner> make_device_runner(const RunnerParts& parts, Device& device,
                                           const VramShare& share, const LinkRates& rates,
                                           PinnedCache cache) {
  return std::make_unique<DeviceRunner>(parts, device, share, rates, std::move(cache));
}

}  // namespace hearth
