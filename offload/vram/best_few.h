// The few of largest rank among many.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace hearth {

class BestFew {
 public:
  struct Item {
    float rank;
    int32_t what;
  };

  // Keeps so many. Nothing else allocates; a copy would.
  explicit BestFew(int32_t most) : most_(most) { items_.reserve(most + 1); }
  BestFew(BestFew&&) = default;

  void clear() { items_.clear(), first_ = 0; }
  void offer(int32_t what, float rank) {
    if (std::ssize(items_) == most_ && (most_ == 0 || rank <= items_.back().rank)) return;
    items_.insert(std::ranges::upper_bound(items_, rank, std::greater(), &Item::rank),
                  {rank, what});
    if (std::ssize(items_) > most_) items_.pop_back();
  }
  // After all were offered: the best one that is left.
  bool empty() const { return first_ == items_.size(); }
  const Item& front() const { return items_[first_]; }
  void pop() { ++first_; }

 private:
  const int32_t most_;
  std::vector<Item> items_;  // falling rank
  size_t first_ = 0;
};

}  // namespace hearth
