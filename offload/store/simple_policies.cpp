// LRU, LFU and the optimum: what the policy of the program is held against.
#include <cmath>
#include <limits>

#include "base/check.h"
#include "offload/store/cache_policy.h"
#include "offload/store/key_heap.h"

namespace hearth {
namespace {

// A ring in order of add(). All keys of a step are added before the next begins, so this is the
// order of their last uses.
class LruPolicy : public CachePolicy {
 public:
  explicit LruPolicy(CacheShape shape) : links_(shape.pairs() + 1), head_(shape.pairs()) {
    links_[head_] = {head_, head_};
  }
  void begin_step(int32_t) override {}
  void touch(int32_t) override {}
  void add(int32_t key) override {
    const int32_t newest = links_[head_].older;
    links_[key] = {head_, newest};
    links_[newest].newer = key;
    links_[head_].older = key;
  }
  void remove(int32_t key) override {
    const Link link = links_[key];
    links_[link.newer].older = link.older;
    links_[link.older].newer = link.newer;
  }
  int32_t victim() override {
    const int32_t oldest = links_[head_].newer;
    if (oldest == head_) return -1;
    remove(oldest);
    return oldest;
  }

 private:
  struct Link {
    int32_t newer, older;
  };
  std::vector<Link> links_;  // a ring; the last is its head
  const int32_t head_;
};

int32_t take_top(KeyHeap& heap) {
  if (heap.empty()) return -1;
  const int32_t key = heap.top();
  heap.remove(key);
  return key;
}

// Counts are not made smaller with time; a new use is made larger, which orders keys the same.
class LfuPolicy : public CachePolicy {
 public:
  LfuPolicy(CacheShape shape, double half_life)
      : heap_(shape.pairs()), growth_(std::exp2(1 / half_life)) {
    HEARTH_CHECK(half_life > 0);
  }
  void begin_step(int32_t layer) override {
    constexpr double kMost = 1e100;
    if (layer == 0) use_ *= growth_;
    if (use_ < kMost) return;
    heap_.scale(1 / use_);
    use_ = 1;
  }
  void touch(int32_t key) override { heap_.set_rank(key, heap_.rank(key) + use_); }
  void add(int32_t key) override { heap_.add(key); }
  void remove(int32_t key) override { heap_.remove(key); }
  int32_t victim() override { return take_top(heap_); }

 private:
  KeyHeap heap_;
  const double growth_;
  double use_ = 1;
};

class OptimalPolicy : public CachePolicy {
 public:
  OptimalPolicy(CacheShape shape, const std::vector<int32_t>& keys)
      : heap_(shape.pairs()), keys_(keys), next_(keys.size()) {
    std::vector<int64_t> later(shape.pairs(), std::numeric_limits<int64_t>::max());
    for (int64_t i = std::ssize(keys) - 1; i >= 0; --i) {
      next_[i] = later[keys[i]];
      later[keys[i]] = i;
    }
    for (int32_t key = 0; key < shape.pairs(); ++key) {
      heap_.set_rank(key, -static_cast<double>(later[key]));
    }
  }
  void begin_step(int32_t) override {}
  void touch(int32_t key) override {
    HEARTH_CHECK(at_ < next_.size() && keys_[at_] == key);
    heap_.set_rank(key, -static_cast<double>(next_[at_++]));
  }
  void add(int32_t key) override { heap_.add(key); }
  void remove(int32_t key) override { heap_.remove(key); }
  int32_t victim() override { return take_top(heap_); }

 private:
  KeyHeap heap_;
  const std::vector<int32_t>& keys_;
  std::vector<int64_t> next_;  // [touches] the touch of the same key that follows
  size_t at_ = 0;
};

}  // namespace

std::unique_ptr<CachePolicy> make_lru_policy(CacheShape shape) {
  return std::make_unique<LruPolicy>(shape);
}
std::unique_ptr<CachePolicy> make_lfu_policy(CacheShape shape, double half_life) {
  return std::make_unique<LfuPolicy>(shape, half_life);
}
std::unique_ptr<CachePolicy> make_optimal_policy(CacheShape shape,
                                                 const std::vector<int32_t>& keys) {
  return std::make_unique<OptimalPolicy>(shape, keys);
}

}  // namespace hearth
