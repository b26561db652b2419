// Guesses which experts the next layer will use, so that the disk reads on while the layers between
// are computed: this layer's input through the next layer's router, which sees what residual
// streams have in common.
//
// A right guess spares the time in which the disk would stand idle; a wrong one keeps it from what
// is wanted for the rest of its read. So guesses are made only where the share of right ones, seen
// so far, pays for the wrong ones; now and then one is made to look at only. One thread owns a
// Lookahead.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "model/step.h"

namespace hearth {

class Lookahead {
 public:
  Lookahead(int32_t layers, int32_t experts_used);

  // After `layer` has asked for its own experts; `next` routes the layer after it.
  void guess(Step& step, int32_t layer, const MoeWeights& next, ExpertCache& cache) noexcept;
  // The experts of a layer are computed: from here on the disk would stand idle.
  void experts_done() noexcept { idle_from_ = Clock::now(); }
  // The picks of `layer`, [n, used], are known.
  void settle(int32_t layer, const int32_t* picks, int32_t n) noexcept;

  // Share of the guesses for a layer that were right; 0 before the first.
  double precision(int32_t layer) const { return layers_[layer].precision; }

 private:
  using Clock = std::chrono::steady_clock;
  struct LayerGuess {
    double precision = 0;
    int64_t steps = 0;
    std::vector<int32_t> experts;  // the most likely first; of the step at hand
  };

  const int32_t used_;
  std::vector<LayerGuess> layers_;
  Clock::time_point idle_from_{};
  double idle_seconds_ = 0;  // between a layer's experts and the next layer's picks, a mean
};

}  // namespace hearth
