// Experts that come over the link to be computed once. They arrive in slots, in two
// halves: while one half is computed, the next experts are copied into the other, on a stream of
// their own. Which experts come, model/device/link_split.h says; those that are still to be read
// from a disk come last, once they have been.
//
// One thread owns the object. After construction nothing is allocated.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/limits.h"
#include "device/device.h"
#include "model/device/link_split.h"
#include "model/device/slab.h"
#include "model/device/weights.h"
#include "offload/store/expert_store.h"
#include "offload/vram/vram_slots.h"
#include "offload/vram/vram_tier.h"

namespace hearth {

struct ExpertSending {
  std::vector<LayerExperts> layers;  // the stacks' data is not looked at
  LinkRates rates;
};

class ExpertStream {
 public:
  // With Limits::experts_sent slots. Throws Error where the memory does not fit.
  ExpertStream(Device& device, const ExpertSending& sending, int32_t experts, const Limits& limits);

  // Which experts are sent of those that these picks of a layer name and `held` doesn't hold; what
  // `store` has at hand comes first.
  void choose(int32_t layer, std::span<const int32_t> picks, const VramTier& held,
              const ExpertStore& store);
  bool sends(int32_t expert) const { return is_sent_[expert] != 0; }
  std::span<const int32_t> sent() const { return sent_; }

  // Before the layer's first run(), once the store has begun the layer. `compute` is always the
  // same stream.
  void begin(const Stream& compute);
  // Enqueues what is sent as far as it is at hand: the copies, and in `compute` what `use` puts
  // there with each half's experts; the data of all others is null. `store` lends what is sent
  // until the copies are done; out of pinned memory they don't hold up the host.
  void run(const Stream& compute, const ExpertStore& store,
           const std::function<void(const DeviceExperts&)>& use);
  // Whether all of it is enqueued.
  bool is_done() const { return next_round_ == rounds(); }
  // Whose `data` is null only for experts that were neither held nor sent, and not to be read. For
  // work that is enqueued after begin() and before its next call.
  DeviceExperts on_device() const;

  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }  // on the device

 private:
  struct Half {
    Event arrived, used;
  };
  int64_t round_size() const { return slots_ / 2; }
  int64_t rounds() const { return (std::ssize(sent_) + round_size() - 1) / round_size(); }
  std::span<const int32_t> sent_in(int64_t round) const;
  unsigned char* slot(int64_t round, int64_t i) const;
  void write_tables();
  DeviceExperts sent_experts(int64_t round) const;
  void copy_experts(int64_t round, const ExpertStore& store);

  Device& device_;
  const std::vector<LayerExperts> layers_;
  const LinkRates rates_;
  const int32_t experts_;
  const int64_t slots_;
  const VramSlotGroups groups_;
  int64_t slot_bytes_ = 0;

  int32_t layer_ = 0;
  const VramTier* held_ = nullptr;
  std::vector<int32_t> counts_;    // [experts] tokens
  std::vector<int32_t> missing_;   // by falling tokens, but of those sent the ones at hand first
  std::vector<int32_t> tokens_;    // theirs
  std::span<const int32_t> sent_;  // the first of them
  std::vector<uint8_t> is_sent_;   // [experts]
  int64_t next_round_ = 0;

  DeviceBuffer memory_;
  unsigned char* slot_memory_ = nullptr;           // [slots] of slot_bytes_
  const unsigned char** device_tables_ = nullptr;  // [experts] of those on the device, then for
                                                   // each round [parts, experts]
  PinnedBuffer host_tables_;                       // the same
  Event uploaded_;
  std::array<Half, 2> halves_;
  Stream copies_;
};

// The bytes that an ExpertStream allocates on the device, and pinned in the host's memory.
int64_t expert_stream_bytes(std::span<const LayerExperts> layers, int32_t experts,
                            const Limits& limits);
int64_t expert_stream_pinned_bytes(int32_t experts, const Limits& limits);

}  // namespace hearth
