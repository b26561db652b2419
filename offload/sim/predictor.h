// Guesses which experts a layer will use before its router has spoken: a stand-in of set precision
// for predictors yet to be chosen.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/sim/routing_generator.h"

namespace hearth {

class Predictor {
 public:
  // `precision`: share of the guesses that are right, 0 to 1. `experts`: of a layer.
  Predictor(double precision, int32_t experts, uint64_t seed)
      : precision_(precision), experts_(experts), random_(seed) {}

  // One guess for each of `keys`, which the layer that begins at key `first` will use: that one, or
  // one that it won't use; none where it uses all.
  void guess(int32_t first, std::span<const int32_t> keys, std::vector<int32_t>& guesses);

 private:
  const double precision_;
  const int32_t experts_;
  RoutingRandom random_;
};

}  // namespace hearth
