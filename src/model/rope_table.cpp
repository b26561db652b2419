#include "model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hearth {
namespace {

// YaRN (Peng et al. 2023, "NTK-by-parts"): 0 where a pair turns often enough over the original
// context to be kept, 1 where its frequency is divided by the factor, linear between.
double yarn_ramp(const RopeScaling& scaling, int32_t rope_dim, int32_t pair) {
  auto correction = [&](double rotations) {
    return rope_dim * std::log(scaling.original_context / (2 * std::numbers::pi * rotations)) /
           (2 * std::log(scaling.theta));
  };
  const double low = std::max(std::floor(correction(scaling.beta_fast)), 0.0);
  const double high = std::min(std::ceil(correction(scaling.beta_slow)), rope_dim - 1.0);
  return std::clamp((pair - low) / std::max(high - low, 0.001), 0.0, 1.0);
}

}  // namespace

RopeTable::RopeTable(const RopeScaling& scaling, int32_t rope_dim) {
  for (int32_t pair = 0; pair < rope_dim / 2; ++pair) {
    const double plain = std::pow(scaling.theta, -2.0 * pair / rope_dim);
    const double ramp = scaling.factor > 1 ? yarn_ramp(scaling, rope_dim, pair) : 0.0;
    frequencies_.push_back(plain / scaling.factor * ramp + plain * (1 - ramp));
  }
}

void RopeTable::angles(int64_t position, float* cosines, float* sines) const {
  for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
    const double angle = static_cast<double>(position) * frequencies_[pair];
    cosines[pair] = static_cast<float>(std::cos(angle));
    sines[pair] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace hearth
