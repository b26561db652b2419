#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "base/check.h"
#include "base/error.h"

namespace hearth {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

constexpr size_t kBlock = 256;      // tokens whose weights are added up together
constexpr float kSteepest = 1e30f;  // of a temperature as good as 0; infinity would make NaN

struct Extent {
  float largest;
  bool is_finite;  // all of them
};

// In several lanes, which compilers turn into a vector: one after the other takes a comparison's
// latency each.
Extent extent_of(std::span<const float> values) {
  constexpr size_t kLanes = 16;
  float largest[kLanes];
  int32_t broken[kLanes] = {};
  std::ranges::fill(largest, kLowest);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      largest[lane] = largest[lane] < value ? value : largest[lane];
      broken[lane] |= std::abs(value) <= -kLowest ? 0 : 1;
    }
  }
  for (; i < values.size(); ++i) {
    largest[0] = largest[0] < values[i] ? values[i] : largest[0];
    broken[0] |= std::abs(values[i]) <= -kLowest ? 0 : 1;
  }
  return {*std::ranges::max_element(largest), std::ranges::count(broken, 0) == kLanes};
}

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
    : options_(options), kernels_(kernels), random_(options.seed) {}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> answer) {
  HEARTH_CHECK(!logits.empty());
  logits = finite(penalized(logits, answer));
  if (options_.temperature == 0) {
    return static_cast<int32_t>(std::ranges::find(logits, largest_) - logits.begin());
  }
  add_up(logits);
  if (options_.top_k == 0 && options_.min_p == 0 && options_.top_p == 1) {
    return draw_from_all(logits);
  }
  gather_likeliest(logits);
  cut_to_top_k();
  cut_to_min_p();
  cut_to_top_p();
  return draw_from_candidates();
}

std::span<const float> Sampler::penalized(std::span<const float> logits,
                                          std::span<const int32_t> answer) {
  const bool any = options_.repetition_penalty != 1 || options_.presence_penalty != 0 ||
                   options_.frequency_penalty != 0;
  if (!any || answer.empty()) return logits;
  changed_.assign(logits.begin(), logits.end());
  std::unordered_map<int32_t, int32_t> counts;
  for (const int32_t token : answer) ++counts[token];
  for (const auto& [token, count] : counts) {
    float& logit = changed_[token];
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  }
  return changed_;
}

// Comparisons need an order, which NaN doesn't have; infinities would make NaN weights.
std::span<const float> Sampler::finite(std::span<const float> logits) {
  const Extent extent = extent_of(logits);
  largest_ = extent.largest;
  if (extent.is_finite) return logits;
  if (logits.data() != changed_.data()) changed_.assign(logits.begin(), logits.end());
  for (float& logit : changed_) {
    logit = std::isnan(logit) ? kLowest : std::clamp(logit, kLowest, -kLowest);
  }
  largest_ = extent_of(changed_).largest;
  return changed_;
}

void Sampler::add_up(std::span<const float> logits) {
  steepness_ = std::min(1 / options_.temperature, kSteepest);
  block_sums_.resize((logits.size() + kBlock - 1) / kBlock);
  std::array<float, kBlock> terms;
  for (size_t block = 0; block < block_sums_.size(); ++block) {
    block_sums_[block] = terms_of(logits, block, terms.data());
  }
  total_ = std::accumulate(block_sums_.begin(), block_sums_.end(), 0.0);
}

// The weights of a block [kBlock, or fewer for the last]; returns their sum.
float Sampler::terms_of(std::span<const float> logits, size_t block, float* terms) const {
  const auto part =
      logits.subspan(block * kBlock).first(std::min(kBlock, logits.size() - block * kBlock));
  return kernels_.softmax_terms(part.data(), largest_, steepness_, std::ssize(part), terms);
}

// Finds the block that the draw falls into, then the token in it.
int32_t Sampler::draw_from_all(std::span<const float> logits) {
  double target = draw_below(total_);
  size_t block = 0;
  while (block + 1 < block_sums_.size() && target >= block_sums_[block]) {
    target -= block_sums_[block++];
  }
  std::array<float, kBlock> terms = {};
  terms_of(logits, block, terms.data());
  size_t last = 0;  // with a weight: rounding may leave a rest of the target
  for (size_t i = 0; i < kBlock && target >= 0; ++i) {
    if (terms[i] == 0) continue;
    last = i;
    target -= terms[i];
  }
  return static_cast<int32_t>(block * kBlock + last);
}

// Candidates in the order of tokens: as few of the likeliest as the cuts can be sure with.
void Sampler::gather_likeliest(std::span<const float> logits) {
  for (float least_weight = 1.0f / 16; least_weight > 0; least_weight *= 1.0f / 256) {
    gather_from(logits, least_weight);
    if (are_enough(least_weight)) return;
  }
  gather_from(logits, 0);
}

void Sampler::gather_from(std::span<const float> logits, float least_weight) {
  candidates_.clear();
  std::array<float, kBlock> terms;
  for (size_t block = 0; block < block_sums_.size(); ++block) {
    if (block_sums_[block] < least_weight) continue;
    terms_of(logits, block, terms.data());
    const size_t first = block * kBlock;
    for (size_t i = first; i < std::min(first + kBlock, logits.size()); ++i) {
      if (terms[i - first] < least_weight) continue;
      candidates_.push_back({static_cast<int32_t>(i), logits[i], terms[i - first]});
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
