#include "offload/sim/cache_curves.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace hearth {
namespace {

// How many keys were used since a time, for times that only grow. A Fenwick tree over the times of
// the keys' last uses; when it is full, the times are counted anew from 0 in the same order.
class LastUses {
 public:
  explicit LastUses(int32_t keys)
      : time_(keys, -1),
        size_(std::bit_ceil(static_cast<uint32_t>(keys)) * 4),
        tree_(size_ + 1),
        key_at_(size_, -1) {}

  bool has(int32_t key) const { return time_[key] >= 0; }
  int32_t used_since(int32_t key) const { return live_ - count_until(time_[key]); }
  void use(int32_t key) {
    if (next_ == size_) compact();
    if (has(key)) {
      add(time_[key], -1);
      key_at_[time_[key]] = -1;
    } else {
      ++live_;
    }
    place(key, next_++);
  }

 private:
  void add(int32_t time, int32_t n) {
    for (uint32_t i = time + 1; i <= size_; i += i & -i) tree_[i] += n;
  }
  int32_t count_until(int32_t time) const {
    int32_t count = 0;
    for (uint32_t i = time + 1; i > 0; i &= i - 1) count += tree_[i];
    return count;
  }
  void place(int32_t key, uint32_t time) {
    time_[key] = static_cast<int32_t>(time);
    key_at_[time] = key;
    add(time_[key], 1);
  }
  void compact() {
    std::ranges::fill(tree_, 0);
    next_ = 0;
    for (uint32_t time = 0; time < size_; ++time) {
      const int32_t key = std::exchange(key_at_[time], -1);
      if (key >= 0) place(key, next_++);
    }
  }

  std::vector<int32_t> time_;  // [keys] of the last use, -1: none
  const uint32_t size_;
  std::vector<int32_t> tree_;    // [size + 1]
  std::vector<int32_t> key_at_;  // [size] whose last use it is, -1: nobody's
  uint32_t next_ = 0;
  int32_t live_ = 0;
};

}  // namespace

int64_t count_hits(const Accesses& accesses, CachePolicy& policy, int64_t slots,
                   std::span<const int32_t> loaded) {
  HEARTH_CHECK(slots >= accesses.step_keys_max && slots >= std::ssize(loaded));
  std::vector<uint8_t> held(accesses.pairs(), 0);
  int64_t hits = 0, free_slots = slots - std::ssize(loaded);
  for (const int32_t key : loaded) {
    held[key] = 1;
    policy.add(key);
  }
  for (int64_t s = 0; s < accesses.steps(); ++s) {
    const std::span<const int32_t> keys = accesses.step(s);
    policy.begin_step(accesses.layer[s]);
    for (const int32_t key : keys) {
      policy.touch(key);
      if (!held[key]) continue;
      policy.remove(key);
      ++hits;
    }
    for (const int32_t key : keys) {
      if (held[key]) continue;
      if (free_slots > 0) {
        --free_slots;
      } else {
        const int32_t victim = policy.victim();
        HEARTH_CHECK(victim >= 0);
        held[victim] = 0;
      }
      held[key] = 1;
    }
    for (const int32_t key : keys) policy.add(key);
  }
  return hits;
}

HitCounts lru_curve(const Accesses& accesses) {
  HitCounts curve(accesses.pairs() + 1, 0);
  LastUses uses(accesses.pairs());
  for (int64_t s = 0; s < accesses.steps(); ++s) {
    const std::span<const int32_t> keys = accesses.step(s);
    // A key that stands n-th from the top of the stack is a hit for n slots and more.
    for (const int32_t key : keys) {
      if (uses.has(key)) ++curve[uses.used_since(key) + 1];
    }
    for (const int32_t key : keys) uses.use(key);
  }
  std::partial_sum(curve.begin(), curve.end(), curve.begin());
  return curve;
}

std::vector<int64_t> count_uses(const Accesses& accesses) {
  std::vector<int64_t> uses(accesses.pairs(), 0);
  for (const int32_t key : accesses.keys) ++uses[key];
  return uses;
}

template <typename T>
HitCounts static_curve(const Accesses& accesses, const std::vector<T>& popularity) {
  const std::vector<int64_t> uses = count_uses(accesses);
  std::vector<int32_t> order(accesses.pairs());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](int32_t key) { return popularity[key]; });
  HitCounts curve(order.size() + 1, 0);
  for (size_t i = 0; i < order.size(); ++i) curve[i + 1] = curve[i] + uses[order[i]];
  return curve;
}
template HitCounts static_curve(const Accesses&, const std::vector<int64_t>&);
template HitCounts static_curve(const Accesses&, const std::vector<double>&);

double mean_working_set(const Accesses& accesses, int64_t window_passes) {
  const int64_t steps = window_passes * accesses.layers;
  const int64_t windows = accesses.steps() / steps;
  std::vector<int64_t> seen(accesses.pairs(), -1);
  int64_t distinct = 0;
  for (int64_t s = 0; s < windows * steps; ++s) {
    for (const int32_t key : accesses.step(s))
      distinct += std::exchange(seen[key], s / steps) != s / steps;
  }
  return windows == 0 ? 0 : static_cast<double>(distinct) / static_cast<double>(windows);
}

}  // namespace hearth
