#include <vector>

#include "engine/runner.h"
#include "model/kv_cache.h"

namespace hearth {
namespace {

class HostSequence : public Sequence {
 public:
  HostSequence(const RunnerParts& parts, int64_t context)
      : cache(parts.config, parts.kv, context, parts.limits) {
    // The rows of a chunk in all layers, ring and carried state. What later ones add is a few
    // hundred bytes a token and layer, which takes a thousandth of the token's time to clear: not
    // worth having a cache for a million tokens committed before anyone writes a long text.
    cache.commit(parts.workers, parts.limits.chunk_tokens);
  }
  int64_t context() const override { return cache.context(); }
  int64_t bytes() const override { return cache.bytes(); }
  void clear() override { cache.position = 0; }

  KvCache cache;
};

class HostRunner : public Runner {
 public:
  HostRunner(const RunnerParts& parts, std::unique_ptr<ExpertCache> cache)
      : parts_(parts),
        forward_(parts.config, parts.weights, parts.kernels, parts.workers, parts.context,
                 parts.limits, std::move(cache)),
        row_(parts.kernels) {}

  std::unique_ptr<Sequence> new_sequence(int64_t context) override {
    return std::make_unique<HostSequence>(parts_, context);
  }
  std::span<const float> run(std::span<const SequenceFeed> feeds, LogitRows wanted,
                             ForwardObserver* observer,
                             const std::function<bool(int32_t)>& on_layer) override {
    segments_.clear();
    for (const SequenceFeed& feed : feeds) {
      segments_.push_back({&static_cast<HostSequence*>(feed.sequence)->cache, feed.tokens});
    }
    return forward_.run(segments_, wanted, observer, on_layer);
  }
  LogitRow* run_to_row(const SequenceFeed& feed,
                       const std::function<bool(int32_t)>& on_layer) override {
    const auto logits = run({&feed, 1}, LogitRows::kLast, nullptr, on_layer);
    if (logits.empty()) return nullptr;
    row_.set(logits);
    return &row_;
  }
  std::optional<ReadFailure> take_failure() override { return forward_.take_failure(); }
  std::optional<ReadFailure> load_experts(
      std::span<const int32_t> in_cache,
      const std::function<void(int64_t, int64_t)>& on_load) override {
    return cache()->load(in_cache, on_load);
  }
  ExpertCache* cache() override { return forward_.cache(); }
  double guess_precision(int32_t layer) const override { return forward_.guess_precision(layer); }
  StageClock& clock() override { return forward_.clock(); }
  void set_timing(bool) override {}
  double vram_hit_rate() const override { return 1; }
  void clear_figures() override {
    clock().clear();
    if (cache() != nullptr) cache()->clear_stats();
  }
  int64_t scratch_bytes() const override { return forward_.scratch_bytes(); }

 private:
  const RunnerParts parts_;
  Forward forward_;
  std::vector<Segment> segments_;
  HostLogitRow row_;
};

}  // namespace

std::unique_ptr<Runner> make_host_runner(const RunnerParts& parts,
                                         std::unique_ptr<ExpertCache> cache) {
  return std::make_unique<HostRunner>(parts, std::move(cache));
}

}  // namespace hearth
