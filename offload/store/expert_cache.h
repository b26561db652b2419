// The experts of a model larger than memory: slots keep those at hand, the others are read from
// their file when a layer wants them.
//
// An expert is absent, being read or resident. It is held while it is expected for a layer to come,
// while a layer computes with it and while it is copied to the memory of a device; of what nobody
// holds the policy says who gives way. Nothing is ever written: each expert is in its file anyway.
// A read that fails leaves the expert absent, and is a failure where somebody waits for it.
//
// One thread owns a cache. Only the constructor allocates.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "offload/io/reader.h"
#include "offload/store/cache_policy.h"
#include "offload/store/expert_slots.h"

namespace hearth {

// Sums since the last clear.
struct CacheStats {
  int64_t uses = 0;      // of experts by layers, one for all tokens of a step
  int64_t hits = 0;      // of these: resident before the step asked for anything
  int64_t foreseen = 0;  // of these: asked for before their layer began
  int64_t guessed = 0;   // experts read because a layer was expected to use them
  ReaderStats reads;

  // Shares of the uses: all where nothing was used.
  double hit_rate() const { return uses > 0 ? share_of_uses(hits) : 1; }
  double foreseen_rate() const { return uses > 0 ? share_of_uses(foreseen) : 0; }
  // While a read was under way.
  double disk_gb_s() const {
    return reads.busy_seconds > 0 ? static_cast<double>(reads.bytes) / reads.busy_seconds * 1e-9
                                  : 0;
  }

 private:
  double share_of_uses(int64_t part) const {
    return static_cast<double>(part) / static_cast<double>(uses);
  }
};

struct LayerUse {
  int64_t uses = 0;
  int64_t hits = 0;
};

struct ReadFailure {
  int32_t layer;
  int32_t expert;
  int32_t file;
  int32_t error;  // an errno
};

class ExpertCache {
 public:
  // `read_ahead`: experts that may be under way at once.
  ExpertCache(CacheShape shape, ExpertSlots slots, std::unique_ptr<Reader> reader,
              std::unique_ptr<CachePolicy> policy, int32_t read_ahead);
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;

  // Before the first layer: brings these experts, distinct keys and no more than there are slots,
  // into memory. `on_load` is called with bytes of slots filled and in all. The first read that
  // failed, if any did; the others may then be absent.
  std::optional<ReadFailure> load(std::span<const int32_t> keys,
                                  const std::function<void(int64_t, int64_t)>& on_load);

  int64_t bytes() const { return slots_.bytes(); }
  int64_t slots() const { return slots_.count(); }
  std::span<unsigned char> memory() { return slots_.memory(); }
  std::span<const unsigned char> memory() const { return slots_.memory(); }

  // A layer's tokens picked, [n, used], negative for those computed elsewhere; `experts` are the
  // distinct ones to compute. All of them are wanted from here on: held, and read where they are
  // absent. What was expected of the layer beside them is let go.
  void begin_layer(int32_t layer, int32_t n, int32_t used, const int32_t* picks,
                   std::span<const int32_t> experts) noexcept;
  // An expert that something else than the layer's computation reads: wanted as those.
  void lend(int32_t layer, int32_t expert) noexcept;
  // An expert that is wanted or copied, once it is resident.
  std::optional<ExpertWeights> find(int32_t layer, int32_t expert) const noexcept;
  // It is wanted no more.
  void release(int32_t layer, int32_t expert) noexcept;
  // A layer to come in this step may use this expert: held until that layer begins, and read when
  // nothing else is waiting to be.
  void expect(int32_t layer, int32_t expert) noexcept;

  // Holds an expert for a copy to elsewhere, whatever steps do meanwhile; reads it where it is
  // absent, which none may be that a layer wants. While layers want experts, no more than
  // most_copied() are held so: the layers need slots.
  void begin_copy(int32_t layer, int32_t expert) noexcept;
  // The copy is done, or given up. Where the expert `moved` its slot is free for another one, as
  // soon as no layer reads it there.
  void end_copy(int32_t layer, int32_t expert, bool moved) noexcept;
  int64_t most_copied() const { return slots() / 4; }

  // Takes in what has arrived and starts what can be.
  void poll() noexcept;
  // The same, after waiting for an arrival; false where nothing can be under way.
  bool wait() noexcept;
  bool is_idle() const noexcept { return reader_->in_flight() == 0; }

  // The first read that failed of what was wanted or copied, since it was last asked for.
  bool has_failed() const noexcept { return failure_.has_value(); }
  std::optional<ReadFailure> take_failure() noexcept;
  // Lets go of all that is wanted and expected, where a step ends early, and reads nothing more.
  void abandon() noexcept;

  bool is_absent(int32_t layer, int32_t expert) const noexcept;
  bool is_resident(int32_t layer, int32_t expert) const noexcept;
  // Experts that can be read in so many seconds, as reads went so far; 0 before the first.
  double readable_in(double seconds) const noexcept;
  CacheStats stats() const;
  std::span<const LayerUse> layer_uses() const { return layer_uses_; }
  void clear_stats();

 private:
  enum class Residency : uint8_t { kAbsent, kReading, kResident };
  struct Entry {
    Residency residency = Residency::kAbsent;
    bool wanted = false;
    bool expected = false;
    bool copied = false;
    bool moved = false;         // elsewhere: the slot is free when nobody holds it any more
    bool early = false;         // its read was asked for by an expectation of this step
    uint8_t parts_missing = 0;  // of a read under way
    bool failed = false;        // a part of it
    int32_t slot = -1;
    uint64_t checksum = 0;

    bool is_due() const { return wanted || copied; }
    bool is_held() const { return is_due() || expected; }
  };

  int32_t key_of(int32_t layer, int32_t expert) const { return layer * shape_.experts + expert; }
  void learn(int32_t layer, int32_t n, int32_t used, const int32_t* picks);
  void want(int32_t key);
  void end_expectations(int32_t layer);
  void start_reads();
  int32_t next_to_read() const;
  int32_t take_slot(bool for_wanted);
  void start_read(int32_t key, int32_t slot);
  void arrive(const ReadResult& result);
  void hold(int32_t key);
  void let_go(int32_t key);
  uint64_t checksum(int32_t key) const;

  const CacheShape shape_;
  const int32_t read_ahead_;
  ExpertSlots slots_;
  std::unique_ptr<CachePolicy> policy_;  // knows the residents that nobody holds
  std::vector<Entry> entries_;           // [pairs]
  std::vector<int32_t> free_;            // slots
  std::vector<int32_t> expected_;        // keys
  std::vector<int32_t> wanted_reads_;    // keys, first come, first read
  std::vector<int32_t> early_reads_;     // the same, after the wanted ones
  int32_t reading_ = 0;                  // experts under way
  int64_t early_ = 0;                    // experts read early whose layer is still to come
  std::optional<ReadFailure> failure_;
  CacheStats stats_;
  std::vector<LayerUse> layer_uses_;
  double read_seconds_ = 0, read_experts_ = 0;  // before the last clear of the reader's figures
  std::unique_ptr<Reader> reader_;  // last, so that it goes first: reads may be under way
};

}  // namespace hearth
