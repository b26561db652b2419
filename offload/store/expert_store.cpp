#include "offload/store/expert_store.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {

Matrix expert_slice(const Matrix& stack, int32_t experts, int32_t e) {
  const int64_t rows = stack.rows / experts;
  return {stack.type, rows, stack.cols, stack.data + e * rows * row_bytes(stack.type, stack.cols)};
}

ExpertStore::ExpertStore(std::vector<ExpertWeights> stacks, int32_t experts, int32_t used,
                         int32_t tokens_max)
    : stacks_(std::move(stacks)),
      experts_(experts),
      counts_(experts),
      rows_(static_cast<size_t>(tokens_max) * used),
      picks_(rows_.size()) {
  groups_.reserve(std::min<size_t>(experts, rows_.size()));
}

GroupedExperts ExpertStore::group(int32_t layer, const Routing& routing) noexcept {
  const int32_t total = routing.n * routing.used;
  HEARTH_CHECK(static_cast<size_t>(total) <= rows_.size());
  std::ranges::fill(counts_, 0);
  for (int32_t i = 0; i < total; ++i) ++counts_[routing.picks[i]];

  const ExpertWeights& stack = stacks_[layer];
  groups_.clear();
  int32_t next_slot = 0;
  for (int32_t e = 0; e < experts_; ++e) {
    const int32_t n = counts_[e];
    counts_[e] = next_slot;
    if (n == 0) continue;
    const ExpertWeights weights{expert_slice(stack.gate, experts_, e),
                                expert_slice(stack.up, experts_, e),
                                expert_slice(stack.down, experts_, e)};
    groups_.push_back(
        {e, weights, rows_.data() + next_slot, picks_.data() + next_slot, n, next_slot});
    next_slot += n;
  }
  for (int32_t i = 0; i < total; ++i) {
    const int32_t slot = counts_[routing.picks[i]]++;
    rows_[slot] = i / routing.used;
    picks_[slot] = i;
  }
  return {groups_};
}

}  // namespace hearth
