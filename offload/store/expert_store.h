// The door to the routed experts: routing goes in, groups of tokens by expert come out, each with
// the place its weights can be read from. It decides where bytes live and computes nothing.
//
// Either all experts lie where their stacks are, in memory or in mapped files, or they come through
// a cache, in the order in which they are at hand. One thread owns a store.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "offload/store/expert_cache.h"
#include "offload/store/expert_weights.h"

namespace hearth {

// The router's choice for n tokens of one layer.
struct Routing {
  int32_t n;
  int32_t used;
  const int32_t* picks;  // [n, used] experts, best first; negative: computed elsewhere
  // Experts that are computed elsewhere and read from here, once they are at hand: held until the
  // next layer begins. Those that are at hand come first.
  std::span<const int32_t> lent = {};
  // [n, used] as `picks`, with those that are lent: what a cache learns from. Null: picks.
  const int32_t* learned = nullptr;
};

// The tokens that chose one expert. The slots of all groups of a layer follow each other:
// first_slot + i belongs to rows[i].
struct ExpertGroup {
  int32_t expert;
  ExpertWeights weights;
  const int32_t* rows;   // [n] token rows, ascending
  const int32_t* picks;  // [n] index into Routing::picks
  int32_t n;
  int32_t first_slot;
};

class ExpertStore {
 public:
  // `layers` holds one entry a layer; `tokens_max` bounds Routing::n. Without a cache the stacks'
  // data is used.
  ExpertStore(std::vector<LayerExperts> layers, int32_t experts, int32_t used, int32_t tokens_max,
              std::unique_ptr<ExpertCache> cache = nullptr);

  // Groups a layer's tokens and asks for what isn't at hand. Allocates nothing, as all that follow.
  void begin_layer(int32_t layer, const Routing& routing) noexcept;
  // The next groups that can be computed, at least one unless all were given or a read failed;
  // waits for reads where it must. Valid until the next call, which also lets the experts go.
  std::span<const ExpertGroup> next() noexcept;
  // Whether all groups of the layer were given.
  bool is_done() const { return given_ == groups_.size(); }
  // Whether a read kept next() from giving the rest; the step can't go on then.
  bool has_failed() const noexcept { return cache_ != nullptr && cache_->has_failed(); }
  std::optional<ReadFailure> take_failure() noexcept;
  // Sees to the reads that are under way.
  void poll() noexcept {
    if (cache_ != nullptr) cache_->poll();
  }
  // Waits for something to be at hand that was not; false where a read failed, or none is under
  // way.
  bool wait() noexcept { return cache_ != nullptr && !has_failed() && cache_->wait(); }
  // Lets go of everything, where a step ends before its last layer.
  void abandon() noexcept;

  // Whether an expert can be read from here now, and how many of a layer may be lent: not all,
  // since others need slots.
  bool is_at_hand(int32_t layer, int32_t expert) const noexcept {
    return cache_ == nullptr || cache_->is_resident(layer, expert);
  }
  int64_t most_lent() const {
    return cache_ == nullptr ? experts_ : std::min<int64_t>(cache_->slots() / 2, experts_);
  }
  // An expert that is lent and at hand.
  ExpertWeights lent(int32_t layer, int32_t expert) const noexcept;

  // Null where all experts are at hand.
  ExpertCache* cache() { return cache_.get(); }

 private:
  void group(const Routing& routing);
  void release_given();
  void lend(std::span<const int32_t> experts);
  void end_loans();
  size_t bring_forward(size_t most);

  const std::vector<LayerExperts> layers_;
  const int32_t experts_;
  int32_t layer_ = 0;
  std::vector<int32_t> counts_;    // [experts] tokens of each expert, then its next free slot
  std::vector<int32_t> rows_;      // [tokens_max * used] rows by slot
  std::vector<int32_t> picks_;     // [tokens_max * used] pick by slot
  std::vector<int32_t> distinct_;  // [experts] of the layer's tokens
  std::vector<ExpertGroup> groups_;
  int32_t lending_layer_ = 0;
  std::vector<int32_t> lent_;    // [experts] of that layer, out of the cache
  size_t held_ = 0, given_ = 0;  // groups before held_ were let go, before given_ given
  std::unique_ptr<ExpertCache> cache_;
};

}  // namespace hearth
