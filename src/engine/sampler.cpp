#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <unordered_map>

#include "base/check.h"
#include "base/error.h"
#include "base/softmax.h"

namespace hearth {
namespace {

constexpr float kSteepest = 1e30f;  // of a temperature as good as 0; infinity would make NaN

}  // namespace

void SamplingOptions::check() const {
  Problems problems("sampling");
  auto require = [&](const char* name, float value, float low, float high) {
    if (!(value >= low && value <= high)) {
      problems.add(fmt::format("{} is {}, must be from {} to {}", name, value, low, high));
    }
  };
  require("temperature", temperature, 0, 100);
  require("top_p", top_p, 0, 1);
  require("min_p", min_p, 0, 1);
  require("repetition_penalty", repetition_penalty, 0.01f, 100);
  require("presence_penalty", presence_penalty, -100, 100);
  require("frequency_penalty", frequency_penalty, -100, 100);
  if (top_k < 0) problems.add(fmt::format("top_k is {}, must not be negative", top_k));
  try {
    problems.throw_if_any("");
  } catch (const Error& error) {
    throw usage_error(error.what(), "", "");
  }
}

Sampler::Sampler(const SamplingOptions& options, const Kernels& kernels)
    : options_(options), kernels_(kernels), random_(options.seed), host_row_(kernels) {}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> answer) {
  HEARTH_CHECK(!logits.empty());
  host_row_.set(logits);
  return sample(host_row_, answer);
}

int32_t Sampler::sample(LogitRow& row, std::span<const int32_t> answer) {
  if (!has_penalties() || answer.empty()) return pick(row);
  penalize(row.all(), answer);
  host_row_.set(penalized_);
  return pick(host_row_);
}

int32_t Sampler::pick(LogitRow& row) {
  if (options_.temperature == 0) return row.likeliest();
  steepness_ = std::min(1 / options_.temperature, kSteepest);
  block_sums_.resize((row.vocab() + kSoftmaxBlock - 1) / kSoftmaxBlock);
  largest_ = row.add_up(steepness_, block_sums_);
  total_ = std::accumulate(block_sums_.begin(), block_sums_.end(), 0.0);
  if (options_.top_k == 0 && options_.min_p == 0 && options_.top_p == 1) return draw_from_all(row);
  gather_likeliest(row);
  cut_to_top_k();
  cut_to_min_p();
  cut_to_top_p();
  return draw_from_candidates();
}

bool Sampler::has_penalties() const {
  return options_.repetition_penalty != 1 || options_.presence_penalty != 0 ||
         options_.frequency_penalty != 0;
}

void Sampler::penalize(std::span<const float> logits, std::span<const int32_t> answer) {
  penalized_.assign(logits.begin(), logits.end());
  std::unordered_map<int32_t, int32_t> counts;
  for (const int32_t token : answer) ++counts[token];
  for (const auto& [token, count] : counts) {
    float& logit = penalized_[token];
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  }
}

// The weights of a block [kSoftmaxBlock, or fewer for the last].
void Sampler::terms_of(std::span<const float> logits, float* terms) const {
  kernels_.softmax_terms(logits.data(), largest_, steepness_, std::ssize(logits), terms);
}

// Finds the block that the draw falls into, then the token in it.
int32_t Sampler::draw_from_all(LogitRow& row) {
  double target = draw_below(total_);
  size_t block = 0;
  while (block + 1 < block_sums_.size() && target >= block_sums_[block]) {
    target -= block_sums_[block++];
  }
  std::array<float, kSoftmaxBlock> terms = {};
  terms_of(row.block(static_cast<int64_t>(block)), terms.data());
  size_t last = 0;  // with a weight: rounding may leave a rest of the target
  for (size_t i = 0; i < kSoftmaxBlock && target >= 0; ++i) {
    if (terms[i] == 0) continue;
    last = i;
    target -= terms[i];
  }
  return static_cast<int32_t>(block * kSoftmaxBlock + last);
}

// Candidates in the order of tokens: as few of the likeliest as the cuts can be sure with.
void Sampler::gather_likeliest(LogitRow& row) {
  for (float least_weight = 1.0f / 16; least_weight > 0; least_weight *= 1.0f / 256) {
    gather_from(row, least_weight);
    if (are_enough(least_weight)) return;
  }
  gather_from(row, 0);
}

void Sampler::gather_from(LogitRow& row, float least_weight) {
  candidates_.clear();
  std::array<float, kSoftmaxBlock> terms;
  for (size_t block = 0; block < block_sums_.size(); ++block) {
    if (block_sums_[block] < least_weight) continue;
    const auto logits = row.block(static_cast<int64_t>(block));
    terms_of(logits, terms.data());
    const auto first = static_cast<int32_t>(block * kSoftmaxBlock);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (terms[i] < least_weight) continue;
      candidates_.push_back({first + static_cast<int32_t>(i), logits[i], terms[i]});
    }
  }
}

// Whether no cut would ask for a token lighter than `least_weight`.
bool Sampler::are_enough(float least_weight) const {
  if (options_.top_k > 0) return std::ssize(candidates_) >= options_.top_k;
  if (least_weight <= options_.min_p) return true;
  double reached = 0;
  for (const Candidate& candidate : candidates_) reached += candidate.weight;
  // A little more than asked for: the sum of the candidates, once sorted, rounds otherwise.
  return options_.top_p < 1 && reached >= options_.top_p * total_ * (1 + 1e-9);
}

void Sampler::cut_to_top_k() {
  if (options_.top_k == 0) return;
  if (options_.top_k < std::ssize(candidates_)) {
    const auto end = candidates_.begin() + options_.top_k;
    std::partial_sort(candidates_.begin(), end, candidates_.end(), is_likelier);
    candidates_.erase(end, candidates_.end());
  }
  total_ = 0;
  for (const Candidate& candidate : candidates_) total_ += candidate.weight;
}

void Sampler::cut_to_min_p() {
  if (options_.min_p == 0) return;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < options_.min_p; });
}

// Sorts no more candidates than it has to: a few reach most of the total.
void Sampler::cut_to_top_p() {
  if (options_.top_p == 1) return;
  double reached = 0;
  size_t kept = 0;
  for (size_t sorted = 0; sorted < candidates_.size();) {
    const size_t end = std::min(candidates_.size(), std::max<size_t>(64, 8 * sorted));
    const auto begin = candidates_.begin();
    std::partial_sort(begin + static_cast<ptrdiff_t>(sorted), begin + static_cast<ptrdiff_t>(end),
                      candidates_.end(), is_likelier);
    for (; kept < end; ++kept) {
      if (kept > 0 && reached >= options_.top_p * total_) {
        candidates_.resize(kept);
        return;
      }
      reached += candidates_[kept].weight;
    }
    sorted = end;
  }
}

int32_t Sampler::draw_from_candidates() {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double target = draw_below(total);
  for (const Candidate& candidate : candidates_) {
    target -= candidate.weight;
    if (target < 0) return candidate.token;
  }
  return candidates_.back().token;
}

// Written out rather than std::uniform_real_distribution: the same seed draws the same with any
// library.
double Sampler::draw_below(double total) {
  return static_cast<double>(random_() >> 11) * 0x1.0p-53 * total;
}

}  // namespace hearth
