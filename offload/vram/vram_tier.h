// Which routed experts lie in the memory of a device, changing while the model runs. All of them
// stay in the host's memory as well, or in the model's files behind a cache, so nothing is ever
// written back.
//
// Kernels find experts through tables of pointers. A table changes only at the begin of a step,
// ordered among the work of the stream that computes, and host and device see the same change at
// the same step. An expert that is admitted goes this way:
//
//   end_step     it is chosen, and one that gives way to it
//   begin_step   that one leaves the tables; behind the work that may still read it, on a stream of
//                the tier's own, the copy of the new one follows
//   begin_step   of a later step, when the copy is done: the new one enters the tables
//
// Who is chosen. An expert's chance of a use by the next token is estimated as in reuse_policy.cpp,
// from means of 16 and 256 tokens. An absent expert is worth a copy where its chance exceeds that
// of the least likely expert in its group of slots by a margin: a copy takes as much of the host's
// memory bandwidth as one use of the expert on the host, so a margin of 1 / 16 says that it has to
// pay within 16 tokens. Where all experts are used alike, estimates differ by chance only, and
// nearly all of these differences are below it. A layer whose picks nobody told since the last step
// neither takes nor gives.
//
// With a cache an expert comes out of a slot that it is in when it is chosen: one that a layer has
// just read from the disk, say. The slot is held until the copy is done, and free from then on: an
// expert lies in one place. One that leaves the device is read from its file when it is used again.
//
// One thread owns a tier. begin_step, use and end_step allocate nothing. Failures of the device are
// thrown as its Errors.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "device/device.h"
#include "offload/store/expert_cache.h"
#include "offload/store/expert_weights.h"
#include "offload/store/use_chances.h"
#include "offload/vram/best_few.h"
#include "offload/vram/vram_slots.h"

namespace hearth {

struct VramTierOptions {
  int32_t admissions = 8;               // experts under way at once; 0: the first ones stay
  float margin = 1.0f / 16;             // uses a token, see above
  std::span<const int32_t> order = {};  // [layers, experts] who is placed first, each layer's
                                        // experts by falling popularity; empty: 0, 1, ...
  // What is given back and taken at once: much more than a device rounds allocations up by, little
  // beside all of its memory.
  int64_t slab_bytes = int64_t{64} << 20;
  // Where experts are read from their files. It must outlive the tier.
  ExpertCache* cache = nullptr;
};

// Sums since the last clear.
struct VramTierStats {
  int64_t picks = 0;
  int64_t hits = 0;  // of these: the expert was in the tables
  int64_t admissions = 0;
  int64_t copied_bytes = 0;

  double hit_rate() const {
    return picks > 0 ? static_cast<double>(hits) / static_cast<double>(picks) : 1;
  }
};

// The bytes that a VramTier allocates on the device. The stacks' data is not looked at.
int64_t vram_tier_bytes(std::span<const LayerExperts> layers, int32_t experts,
                        std::span<const int32_t> slots_per_layer);

class VramTier {
 public:
  // `layers`: every layer's stacks in the host's memory, which must outlive the tier; pinned, they
  // are copied without holding up the host. A layer with a null stack has no slots and none of its
  // experts is admitted. `slots_per_layer` [layers], 0 to `experts`: how many are placed at once;
  // slots of layers with experts of equal sizes serve all of these layers from then on. Throws
  // Error where the memory does not fit. When it returns all is copied; with a cache the stacks'
  // data is not looked at, and load() is to follow.
  VramTier(Device& device, std::vector<LayerExperts> layers, int32_t experts,
           std::span<const int32_t> slots_per_layer, const VramTierOptions& options = {});

  // Brings the first experts through the cache's slots, before the first step: one part of them
  // comes from the disk while another goes to the device. `on_load` is called with bytes that are
  // there and in all. The first read that failed, if any did: then no step may follow.
  std::optional<ReadFailure> load(const std::function<void(int64_t, int64_t)>& on_load);

  // Their `data` is in the device's memory, at the same address for good.
  GpuExpertMatrices gate(int32_t layer) const { return matrices(layer, 0); }
  GpuExpertMatrices up(int32_t layer) const { return matrices(layer, 1); }
  GpuExpertMatrices down(int32_t layer) const { return matrices(layer, 2); }

  // As the work sees it that is enqueued now.
  bool holds(int32_t layer, int32_t expert) const noexcept {
    return held_[key_of(layer, expert)] != 0;
  }
  bool holds_all(int32_t layer) const noexcept { return held_in_layer_[layer] == shape_.experts; }

  // Before the work of a step is enqueued in `compute`, always the same stream. Never waits.
  void begin_step(const Stream& compute);
  // In a step: picks [n, used] of a layer's tokens.
  void use(int32_t layer, int32_t n, int32_t used, const int32_t* picks) noexcept;
  // After the last use() of a step; its work may still be under way.
  void end_step() noexcept;

  // Between steps: takes experts out of whole slabs of slots, the least likely ones, until so many
  // bytes are free, and gives these back to the device. Waits for all work in `compute`. Returns
  // what was freed: more than asked for by less than a slab, or less where there is no more.
  int64_t shrink(int64_t bytes, const Stream& compute);
  // Takes slabs again that were given back, as many as so many bytes allow; the experts to come
  // are admitted as all others. Returns the bytes taken. Throws Error where they do not fit.
  int64_t grow(int64_t bytes);

  int64_t bytes() const;  // now taken on the device
  const VramTierStats& stats() const { return stats_; }
  void clear_stats() { stats_ = {}; }

 private:
  struct Exchange {
    enum class State : uint8_t { kIdle, kChosen, kCopying };
    State state = State::kIdle;
    int32_t key = -1;    // that comes
    int32_t slot = -1;   // where to
    int32_t owner = -1;  // of the slot until now
    Event arrived;
  };
  // What owns_ says of slots without an expert that could give way.
  static constexpr int32_t kFree = -1, kTaken = -2, kGivenBack = -3;
  struct Place {
    int32_t key;
    int32_t slot;
  };

  int32_t key_of(int32_t layer, int32_t expert) const { return layer * shape_.experts + expert; }
  int32_t layer_of(int32_t key) const { return key / shape_.experts; }
  size_t entry_of(int32_t layer, int part) const {
    return (static_cast<size_t>(layer) * kExpertParts + part) * shape_.experts;
  }
  GpuExpertMatrices matrices(int32_t layer, int part) const;
  std::vector<Place> first_places(std::span<const int32_t> slots_per_layer,
                                  std::span<const int32_t> order);
  void place_first();
  bool wait_for(int32_t key);
  std::array<Matrix, kExpertParts> source_of(int32_t key) const;
  void copy_expert(int32_t key, int32_t slot);
  void end_copy(int32_t key, bool moved) noexcept;
  int64_t expert_bytes(int32_t key) const;
  void enter(int32_t key, int32_t slot);
  void leave(int32_t key);
  void publish(const Stream& compute);
  void rank();
  bool choose(Exchange& exchange);
  void end_exchanges();
  double likely_uses(int32_t key) const;
  int32_t least_likely_slab() const;

  Device& device_;
  const std::vector<LayerExperts> layers_;
  const CacheShape shape_;
  const float margin_;
  ExpertCache* const cache_;
  UseChances chances_;
  std::vector<uint8_t> told_;           // [layers] whether use() came since the last step
  std::vector<uint8_t> admissible_;     // [layers] whether the stacks are in memory
  std::vector<uint8_t> held_;           // [pairs]
  std::vector<uint8_t> coming_;         // [pairs]
  std::vector<int32_t> held_in_layer_;  // [layers]
  std::vector<BestFew> absent_;         // [groups] keys by chance
  std::vector<BestFew> present_;        // [groups] slots by the negative chance of who is there
  VramTierStats stats_;

  VramSlots slots_;
  std::vector<int32_t> owners_;  // [slots] the key in it, or one of the above
  std::vector<Place> first_;     // until they are there
  PinnedBuffer host_tables_;     // [layers, parts, experts] pointers
  DeviceBuffer tables_;          // the same, as kernels read them
  Event published_;              // of the last copy from one to the other
  std::vector<Exchange> exchanges_;
  Stream copies_;
};

}  // namespace hearth
