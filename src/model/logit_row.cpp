#include "model/logit_row.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/softmax.h"

namespace hearth {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

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

// Comparisons need an order, which NaN doesn't have; infinities would make NaN weights.
void make_finite(std::span<float> logits) {
  for (float& logit : logits) {
    logit = std::isnan(logit) ? kLowest : std::clamp(logit, kLowest, -kLowest);
  }
}

float HostLogitRow::largest() {
  const Extent extent = extent_of(logits_);
  if (extent.is_finite) return extent.largest;
  finite_.assign(logits_.begin(), logits_.end());
  make_finite(finite_);
  logits_ = finite_;
  return extent_of(logits_).largest;
}

int32_t HostLogitRow::likeliest() {
  const float wanted = largest();
  return static_cast<int32_t>(std::ranges::find(logits_, wanted) - logits_.begin());
}

float HostLogitRow::add_up(float steepness, std::span<float> sums) {
  const float most = largest();
  std::array<float, kSoftmaxBlock> terms;
  for (size_t i = 0; i < sums.size(); ++i) {
    const auto part = block(static_cast<int64_t>(i));
    sums[i] = kernels_.softmax_terms(part.data(), most, steepness, std::ssize(part), terms.data());
  }
  return most;
}

std::span<const float> HostLogitRow::block(int64_t index) {
  const auto rest = logits_.subspan(index * kSoftmaxBlock);
  return rest.first(std::min<size_t>(kSoftmaxBlock, rest.size()));
}

}  // namespace hearth
