#include "model/lookahead.h"

#include <algorithm>

namespace hearth {
namespace {

constexpr int64_t kStepsBetweenLooks = 16;  // while guesses don't pay
constexpr int64_t kStepsToLearn = 8;        // looked at before any is used
constexpr double kKept = 0.95;              // of a mean, at each new value
constexpr double kLeastPrecision = 0.25;    // however idle the disk is: wrong ones cost slots

// A read takes 1 / readable of the idle time. What is left of a wrong one when its layer begins
// must weigh less than what right ones spare.
double least_precision(double readable) { return std::max(kLeastPrecision, 1 - readable); }

double mean(double old, double value, bool is_first) {
  return is_first ? value : kKept * old + (1 - kKept) * value;
}

}  // namespace

Lookahead::Lookahead(int32_t layers, int32_t experts_used) : used_(experts_used), layers_(layers) {
  for (LayerGuess& layer : layers_) layer.experts.reserve(experts_used);
}

void Lookahead::guess(Step& step, int32_t layer, const MoeWeights& next,
                      ExpertCache& cache) noexcept {
  LayerGuess& guess = layers_[layer + 1];
  guess.experts.clear();
  const double readable = cache.readable_in(idle_seconds_);
  const bool pays = guess.steps >= kStepsToLearn && guess.precision > least_precision(readable);
  ++guess.steps;
  if (!pays && guess.steps > kStepsToLearn && guess.steps % kStepsBetweenLooks != 0) return;
  guess_picks(step, next, used_, guess.experts);
  if (!pays) return;
  auto reads = std::max<int64_t>(static_cast<int64_t>(readable), 1);
  for (const int32_t expert : guess.experts) {
    const bool is_absent = cache.is_absent(layer + 1, expert);
    if (is_absent && reads-- == 0) return;
    cache.expect(layer + 1, expert);
  }
}

void Lookahead::settle(int32_t layer, const int32_t* picks, int32_t n) noexcept {
  const bool is_first = idle_seconds_ == 0;
  if (layer > 0 && idle_from_ != Clock::time_point{}) {
    const double idle = std::chrono::duration<double>(Clock::now() - idle_from_).count();
    idle_seconds_ = mean(idle_seconds_, idle, is_first);
  }
  LayerGuess& guess = layers_[layer];
  if (guess.experts.empty() || n != 1) return;
  const auto right = std::ranges::count_if(guess.experts, [&](int32_t expert) {
    return std::find(picks, picks + used_, expert) != picks + used_;
  });
  const double share = static_cast<double>(right) / static_cast<double>(guess.experts.size());
  guess.precision = mean(guess.precision, share, guess.precision == 0);
}

}  // namespace hearth
