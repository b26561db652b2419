#include "offload/store/expert_store.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {
namespace {

// While reads are under way their queue is seen to after this many tokens' work.
constexpr int32_t kTokensBetweenPolls = 256;

ExpertWeights slice(const ExpertWeights& stacks, int32_t experts, int32_t e) {
  return {expert_slice(stacks.gate, experts, e), expert_slice(stacks.up, experts, e),
          expert_slice(stacks.down, experts, e)};
}

}  // namespace

Matrix expert_slice(const Matrix& stack, int32_t experts, int32_t e) {
  const int64_t rows = stack.rows / experts;
  return {stack.type, rows, stack.cols, stack.data + e * rows * row_bytes(stack.type, stack.cols),
          stack.interleaved};
}

ExpertStore::ExpertStore(std::vector<LayerExperts> layers, int32_t experts, int32_t used,
                         int32_t tokens_max, std::unique_ptr<ExpertCache> cache)
    : layers_(std::move(layers)),
      experts_(experts),
      counts_(experts),
      rows_(static_cast<size_t>(tokens_max) * used),
      picks_(rows_.size()),
      cache_(std::move(cache)) {
  groups_.reserve(std::min<size_t>(experts, rows_.size()));
  distinct_.reserve(experts);
  lent_.reserve(experts);
}

void ExpertStore::begin_layer(int32_t layer, const Routing& routing) noexcept {
  layer_ = layer;
  held_ = given_ = 0;
  group(routing);
  if (cache_ == nullptr) {
    for (ExpertGroup& one : groups_)
      one.weights = slice(layers_[layer].stacks, experts_, one.expert);
    return;
  }
  end_loans();
  lending_layer_ = layer;
  // What is to be read for others comes behind what is to be read for this layer's groups.
  const auto is_absent = [&](int32_t e) { return !cache_->is_resident(layer, e); };
  const auto absent = std::ranges::find_if(routing.lent, is_absent);
  lend({routing.lent.begin(), absent});
  distinct_.clear();
  for (const ExpertGroup& one : groups_) distinct_.push_back(one.expert);
  const int32_t* learned = routing.learned != nullptr ? routing.learned : routing.picks;
  cache_->begin_layer(layer, routing.n, routing.used, learned, distinct_);
  lend({absent, routing.lent.end()});
}

void ExpertStore::lend(std::span<const int32_t> experts) {
  for (const int32_t expert : experts) {
    cache_->lend(lending_layer_, expert);
    lent_.push_back(expert);
  }
}

void ExpertStore::end_loans() {
  for (const int32_t expert : lent_) cache_->release(lending_layer_, expert);
  lent_.clear();
}

ExpertWeights ExpertStore::lent(int32_t layer, int32_t expert) const noexcept {
  if (cache_ == nullptr) return slice(layers_[layer].stacks, experts_, expert);
  return *cache_->find(layer, expert);
}

void ExpertStore::group(const Routing& routing) {
  const int32_t total = routing.n * routing.used;
  HEARTH_CHECK(static_cast<size_t>(total) <= rows_.size());
  std::ranges::fill(counts_, 0);
  for (int32_t i = 0; i < total; ++i) {
    if (routing.picks[i] >= 0) ++counts_[routing.picks[i]];
  }
  groups_.clear();
  int32_t next_slot = 0;
  for (int32_t e = 0; e < experts_; ++e) {
    const int32_t n = counts_[e];
    counts_[e] = next_slot;
    if (n == 0) continue;
    groups_.push_back({e, {}, rows_.data() + next_slot, picks_.data() + next_slot, n, next_slot});
    next_slot += n;
  }
  for (int32_t i = 0; i < total; ++i) {
    if (routing.picks[i] < 0) continue;
    const int32_t slot = counts_[routing.picks[i]]++;
    rows_[slot] = i / routing.used;
    picks_[slot] = i;
  }
}

std::span<const ExpertGroup> ExpertStore::next() noexcept {
  const size_t first = given_;
  if (cache_ == nullptr) {
    given_ = groups_.size();
    return std::span(groups_).subspan(first);
  }
  release_given();
  if (is_done()) return {};
  cache_->poll();
  const size_t most = cache_->is_idle() ? rows_.size() : kTokensBetweenPolls;
  size_t count = bring_forward(most);
  while (count == 0 && cache_->wait()) count = bring_forward(most);
  given_ += count;
  return std::span(groups_).subspan(first, count);
}

void ExpertStore::release_given() {
  for (; held_ < given_; ++held_) cache_->release(layer_, groups_[held_].expert);
}

// Moves groups whose experts are at hand before the others, until they have `most` tokens; how many
// they are.
size_t ExpertStore::bring_forward(size_t most) {
  size_t count = 0, tokens = 0;
  for (size_t i = given_; i < groups_.size() && tokens < most; ++i) {
    const auto weights = cache_->find(layer_, groups_[i].expert);
    if (!weights) continue;
    groups_[i].weights = *weights;
    tokens += static_cast<size_t>(groups_[i].n);
    std::swap(groups_[i], groups_[given_ + count++]);
  }
  return count;
}

std::optional<ReadFailure> ExpertStore::take_failure() noexcept {
  return cache_ == nullptr ? std::nullopt : cache_->take_failure();
}

void ExpertStore::abandon() noexcept {
  groups_.clear();
  lent_.clear();
  held_ = given_ = 0;
  if (cache_ != nullptr) cache_->abandon();
}

}  // namespace hearth
