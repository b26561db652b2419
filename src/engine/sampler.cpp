#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "base/check.h"
#include "base/error.h"

namespace hearth {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

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

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> answer) {
  HEARTH_CHECK(!logits.empty());
  load_candidates(logits);
  penalize(answer);
  if (options_.temperature == 0) {
    const auto best = std::ranges::max_element(candidates_, {}, &Candidate::logit);
    return best->token;
  }
  cut_to_top_k();
  const double total = weigh_candidates();
  cut_to_min_p();
  cut_to_top_p(total);
  return draw();
}

void Sampler::load_candidates(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    // Comparisons below need an order, which NaN doesn't have; infinities would make NaN weights.
    const float logit = std::isnan(logits[i]) ? kLowest : std::clamp(logits[i], kLowest, -kLowest);
    candidates_[i] = {static_cast<int32_t>(i), logit, 0};
  }
}

void Sampler::penalize(std::span<const int32_t> answer) {
  const bool any = options_.repetition_penalty != 1 || options_.presence_penalty != 0 ||
                   options_.frequency_penalty != 0;
  if (!any) return;
  std::unordered_map<int32_t, int32_t> counts;
  for (const int32_t token : answer) ++counts[token];
  for (const auto& [token, count] : counts) {
    float& logit = candidates_[token].logit;
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
    logit = std::max(logit, kLowest);
  }
}

void Sampler::cut_to_top_k() {
  if (options_.top_k == 0 || static_cast<size_t>(options_.top_k) >= candidates_.size()) return;
  const auto end = candidates_.begin() + options_.top_k;
  std::partial_sort(candidates_.begin(), end, candidates_.end(), is_likelier);
  candidates_.erase(end, candidates_.end());
}

// Softmax weights, relative to the likeliest's 1; returns their sum.
double Sampler::weigh_candidates() {
  const float best = std::ranges::max_element(candidates_, {}, &Candidate::logit)->logit;
  double total = 0;
  for (Candidate& candidate : candidates_) {
    candidate.weight = std::exp((candidate.logit - best) / options_.temperature);
    total += candidate.weight;
  }
  return total;
}

void Sampler::cut_to_min_p() {
  if (options_.min_p == 0) return;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < options_.min_p; });
}

// Sorts no more candidates than it has to: a few reach most of `total`.
void Sampler::cut_to_top_p(double total) {
  if (options_.top_p == 1) return;
  double reached = 0;
  size_t kept = 0;
  for (size_t sorted = 0; sorted < candidates_.size();) {
    const size_t end = std::min(candidates_.size(), std::max<size_t>(64, 8 * sorted));
    const auto begin = candidates_.begin();
    std::partial_sort(begin + static_cast<ptrdiff_t>(sorted), begin + static_cast<ptrdiff_t>(end),
                      candidates_.end(), is_likelier);
    for (; kept < end; ++kept) {
      if (kept > 0 && reached >= options_.top_p * total) {
        candidates_.resize(kept);
        return;
      }
      reached += candidates_[kept].weight;
    }
    sorted = end;
  }
}

int32_t Sampler::draw() {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  // Written out rather than std::uniform_real_distribution: the same seed draws the same with any
  // library.
  double target = static_cast<double>(random_() >> 11) * 0x1.0p-53 * total;
  for (const Candidate& candidate : candidates_) {
    target -= candidate.weight;
    if (target < 0) return candidate.token;
  }
  return candidates_.back().token;
}

}  // namespace hearth
