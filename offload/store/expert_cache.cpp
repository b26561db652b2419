#include "offload/store/expert_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace hearth {
namespace {

// Tokens of a step that the policy hears of, the last ones: what came before hardly weighs.
constexpr int32_t kTokensLearned = 512;
// One slot in so many may be filled for layers to come.
constexpr int64_t kSlotsPerEarlyRead = 4;
// Tags of reads: the key and which of its matrices.
constexpr uint64_t kParts = 3;

// Whether every use of a slot looks at all of its bytes again: slow, for finding who writes there.
#ifdef HEARTH_CHECK_SLOTS
constexpr bool kChecksSlots = true;
#else
constexpr bool kChecksSlots = false;
#endif

}  // namespace

ExpertCache::ExpertCache(CacheShape shape, ExpertSlots slots, std::unique_ptr<Reader> reader,
                         std::unique_ptr<CachePolicy> policy, int32_t read_ahead)
    : shape_(shape),
      read_ahead_(read_ahead),
      slots_(std::move(slots)),
      policy_(std::move(policy)),
      entries_(shape.pairs()),
      layer_uses_(shape.layers),
      reader_(std::move(reader)) {
  HEARTH_CHECK(slots_.count() > 0 && read_ahead_ > 0);
  for (int64_t slot = slots_.count(); slot > 0; --slot) {
    free_.push_back(static_cast<int32_t>(slot - 1));
  }
  for (std::vector<int32_t>* keys : {&expected_, &wanted_reads_, &early_reads_}) {
    keys->reserve(shape.pairs());
  }
}

// Wanted like a layer's experts, though no layer uses them.
std::optional<ReadFailure> ExpertCache::load(std::span<const int32_t> keys,
                                             const std::function<void(int64_t, int64_t)>& on_load) {
  HEARTH_CHECK(keys.size() <= free_.size());
  for (const int32_t key : keys) {
    Entry& entry = entries_[key];
    HEARTH_CHECK(entry.residency == Residency::kAbsent && !entry.is_held());
    entry.wanted = true;
    wanted_reads_.push_back(key);
  }
  const int64_t slot_bytes = bytes() / slots(), total = std::ssize(keys) * slot_bytes;
  for (poll(); wait() && !failure_;) {
    const int64_t left = std::ssize(wanted_reads_) + reading_;
    if (on_load) on_load(total - left * slot_bytes, total);
  }
  abandon();
  while (wait()) {
  }
  clear_stats();
  return take_failure();
}

void ExpertCache::begin_layer(int32_t layer, int32_t n, int32_t used, const int32_t* picks,
                              std::span<const int32_t> experts) noexcept {
  learn(layer, n, used, picks);
  for (const int32_t expert : experts) want(key_of(layer, expert));
  end_expectations(layer);
  poll();
}

void ExpertCache::lend(int32_t layer, int32_t expert) noexcept { want(key_of(layer, expert)); }

// The tokens count one after the other, as if each had come alone.
void ExpertCache::learn(int32_t layer, int32_t n, int32_t used, const int32_t* picks) {
  for (int32_t t = std::max(n - kTokensLearned, 0); t < n; ++t) {
    policy_->begin_step(layer);
    for (int32_t k = 0; k < used; ++k) {
      const int32_t expert = picks[t * used + k];
      if (expert >= 0) policy_->touch(key_of(layer, expert));
    }
  }
}

void ExpertCache::want(int32_t key) {
  Entry& entry = entries_[key];
  HEARTH_CHECK(!entry.wanted);
  const bool is_hit = entry.residency == Residency::kResident && !entry.early;
  ++stats_.uses;
  stats_.hits += is_hit;
  stats_.foreseen += entry.early;
  LayerUse& layer_use = layer_uses_[key / shape_.experts];
  ++layer_use.uses;
  layer_use.hits += is_hit;
  hold(key);
  entry.wanted = true;
  if (entry.residency == Residency::kAbsent) wanted_reads_.push_back(key);
}

// Of this layer and of those that were passed.
void ExpertCache::end_expectations(int32_t layer) {
  const auto is_over = [&](int32_t key) { return key / shape_.experts <= layer; };
  std::erase_if(early_reads_, is_over);
  for (const int32_t key : expected_) {
    if (!is_over(key)) continue;
    Entry& entry = entries_[key];
    early_ -= entry.early;
    entry.expected = entry.early = false;
    let_go(key);
  }
  std::erase_if(expected_, is_over);
}

std::optional<ExpertWeights> ExpertCache::find(int32_t layer, int32_t expert) const noexcept {
  const int32_t key = key_of(layer, expert);
  const Entry& entry = entries_[key];
  HEARTH_CHECK(entry.is_due());
  if (entry.residency != Residency::kResident) return std::nullopt;
  if constexpr (kChecksSlots) HEARTH_CHECK(checksum(key) == entry.checksum);
  return slots_.weights(layer, expert, entry.slot);
}

void ExpertCache::release(int32_t layer, int32_t expert) noexcept {
  const int32_t key = key_of(layer, expert);
  HEARTH_CHECK(entries_[key].wanted);
  entries_[key].wanted = false;
  let_go(key);
}

void ExpertCache::begin_copy(int32_t layer, int32_t expert) noexcept {
  const int32_t key = key_of(layer, expert);
  Entry& entry = entries_[key];
  HEARTH_CHECK(!entry.copied);
  hold(key);
  if (entry.residency == Residency::kAbsent && !entry.wanted) wanted_reads_.push_back(key);
  entry.copied = true;
}

void ExpertCache::end_copy(int32_t layer, int32_t expert, bool moved) noexcept {
  const int32_t key = key_of(layer, expert);
  Entry& entry = entries_[key];
  HEARTH_CHECK(entry.copied);
  entry.copied = false;
  entry.moved = moved;
  let_go(key);
}

void ExpertCache::expect(int32_t layer, int32_t expert) noexcept {
  const int32_t key = key_of(layer, expert);
  Entry& entry = entries_[key];
  if (entry.is_held()) return;
  hold(key);
  entry.expected = true;
  expected_.push_back(key);
  if (entry.residency == Residency::kAbsent) early_reads_.push_back(key);
}

void ExpertCache::poll() noexcept {
  start_reads();
  for (ReadResult result; reader_->poll(result);) {
    arrive(result);
    start_reads();
  }
}

bool ExpertCache::wait() noexcept {
  start_reads();
  if (reader_->in_flight() == 0) return false;
  arrive(reader_->wait());
  poll();
  return true;
}

void ExpertCache::start_reads() {
  while (reading_ < read_ahead_) {
    const int32_t key = next_to_read();
    if (key < 0) return;
    const bool is_wanted = !wanted_reads_.empty();
    const int32_t slot = take_slot(is_wanted);
    if (slot < 0) return;
    std::vector<int32_t>& keys = is_wanted ? wanted_reads_ : early_reads_;
    keys.erase(keys.begin());
    start_read(key, slot);
  }
}

int32_t ExpertCache::next_to_read() const {
  if (!wanted_reads_.empty()) return wanted_reads_.front();
  const bool has_room = early_ < std::max<int64_t>(slots_.count() / kSlotsPerEarlyRead, 1);
  return early_reads_.empty() || !has_room ? -1 : early_reads_.front();
}

// A free one, or that of a resident who gives way; -1 where all are held.
int32_t ExpertCache::take_slot(bool for_wanted) {
  if (!free_.empty()) {
    const int32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  int32_t key = policy_->victim();
  if (key < 0 && for_wanted) {
    // What is only expected can be read again.
    const auto found = std::ranges::find_if(expected_, [&](int32_t other) {
      return entries_[other].residency == Residency::kResident && !entries_[other].is_due();
    });
    if (found != expected_.end()) {
      key = *found;
      early_ -= entries_[key].early;
      entries_[key].expected = entries_[key].early = false;
      expected_.erase(found);
    }
  }
  if (key < 0) return -1;
  Entry& entry = entries_[key];
  HEARTH_CHECK(entry.residency == Residency::kResident && !entry.is_held());
  entry.residency = Residency::kAbsent;
  return entry.slot;
}

void ExpertCache::start_read(int32_t key, int32_t slot) {
  Entry& entry = entries_[key];
  HEARTH_CHECK(entry.residency == Residency::kAbsent);
  entry.residency = Residency::kReading;
  entry.slot = slot;
  entry.failed = false;
  entry.parts_missing = kParts;
  entry.early = !entry.is_due();
  early_ += entry.early;
  stats_.guessed += entry.early;
  ++reading_;
  const auto parts = slots_.reads(key / shape_.experts, key % shape_.experts, slot);
  for (uint64_t part = 0; part < kParts; ++part) {
    ReadRequest request = parts[part];
    request.tag = static_cast<uint64_t>(key) * kParts + part;
    reader_->start(request);
  }
}

void ExpertCache::arrive(const ReadResult& result) {
  const auto key = static_cast<int32_t>(result.tag / kParts);
  const int32_t layer = key / shape_.experts, expert = key % shape_.experts;
  Entry& entry = entries_[key];
  HEARTH_CHECK(entry.residency == Residency::kReading);
  if (result.error != 0) {
    entry.failed = true;
    if (entry.is_due() && !failure_) {
      failure_ = {layer, expert, slots_.file(layer, static_cast<int>(result.tag % kParts)),
                  result.error};
    }
  }
  if (--entry.parts_missing > 0) return;
  --reading_;
  if (entry.failed) {
    free_.push_back(entry.slot);
    entry.residency = Residency::kAbsent;
    // A layer that wants it later must hear of the failure itself.
    if (entry.is_due() && !failure_) wanted_reads_.push_back(key);
    return;
  }
  entry.residency = Residency::kResident;
  ++read_experts_;
  if constexpr (kChecksSlots) entry.checksum = checksum(key);
  if (!entry.is_held()) policy_->add(key);
}

// Before a first wanted, expected or copied is set.
void ExpertCache::hold(int32_t key) {
  const Entry& entry = entries_[key];
  if (entry.residency == Residency::kResident && !entry.is_held()) policy_->remove(key);
}

// After a last one is.
void ExpertCache::let_go(int32_t key) {
  Entry& entry = entries_[key];
  if (entry.residency != Residency::kResident || entry.is_held()) return;
  if (!std::exchange(entry.moved, false)) {
    policy_->add(key);
    return;
  }
  entry.residency = Residency::kAbsent;
  free_.push_back(entry.slot);
}

std::optional<ReadFailure> ExpertCache::take_failure() noexcept {
  return std::exchange(failure_, std::nullopt);
}

void ExpertCache::abandon() noexcept {
  wanted_reads_.clear();
  early_reads_.clear();
  expected_.clear();
  early_ = 0;
  for (int32_t key = 0; key < shape_.pairs(); ++key) {
    Entry& entry = entries_[key];
    if (!entry.is_held()) continue;
    entry.wanted = entry.expected = entry.early = false;
    let_go(key);
  }
}

bool ExpertCache::is_absent(int32_t layer, int32_t expert) const noexcept {
  return entries_[key_of(layer, expert)].residency == Residency::kAbsent;
}

bool ExpertCache::is_resident(int32_t layer, int32_t expert) const noexcept {
  return entries_[key_of(layer, expert)].residency == Residency::kResident;
}

double ExpertCache::readable_in(double seconds) const noexcept {
  const double busy = read_seconds_ + reader_->stats().busy_seconds;
  return busy > 0 ? seconds * read_experts_ / busy : 0;
}

CacheStats ExpertCache::stats() const {
  CacheStats stats = stats_;
  stats.reads = reader_->stats();
  return stats;
}

void ExpertCache::clear_stats() {
  read_seconds_ += reader_->stats().busy_seconds;
  stats_ = {};
  std::ranges::fill(layer_uses_, LayerUse{});
  reader_->clear_stats();
}

uint64_t ExpertCache::checksum(int32_t key) const {
  return slots_.checksum(key / shape_.experts, key % shape_.experts, entries_[key].slot);
}

}  // namespace hearth
