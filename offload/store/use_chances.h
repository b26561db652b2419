// How likely each expert is used at the next visit of its layer, learned from the visits so far.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "offload/store/cache_policy.h"

namespace hearth {

// An exponential mean of the visits: each counts `kept` of the one after it.
struct UseMean {
  float kept;    // 2^(-1 / half-life in visits), below 1
  float weight;  // of this mean in the chance; the sum of all weights is 1
};

// A weighted sum of exponential means for each key = layer * experts + expert. Means begin at
// 0, and no chance is 0 once its layer was visited.
class UseChances {
 public:
  UseChances(CacheShape shape, std::span<const UseMean> means)
      : shape_(shape),
        means_(means.begin(), means.end()),
        parts_(means.size() * shape.pairs(), 0),
        chances_(shape.pairs(), 0) {}

  // A visit of the layer; what is used follows.
  void begin_visit(int32_t layer) {
    const int32_t first = layer * shape_.experts;
    float* chances = chances_.data() + first;
    std::fill_n(chances, shape_.experts, 0.0f);
    for (size_t m = 0; m < means_.size(); ++m) {
      float* part = parts_.data() + m * shape_.pairs() + first;
      const float kept = means_[m].kept;
      for (int32_t e = 0; e < shape_.experts; ++e) {
        part[e] = part[e] * kept + kFloor;
        chances[e] += part[e];
      }
    }
  }
  void use(int32_t key) {
    for (size_t m = 0; m < means_.size(); ++m) {
      const float use = means_[m].weight * (1 - means_[m].kept);
      parts_[m * shape_.pairs() + key] += use;
      chances_[key] += use;
    }
  }
  float operator[](int32_t key) const { return chances_[key]; }

 private:
  // Added to every mean at every visit, so that none sinks into the range of numbers that CPUs are
  // slow with.
  static constexpr float kFloor = 1e-12f;

  const CacheShape shape_;
  const std::vector<UseMean> means_;
  std::vector<float> parts_;    // [means, pairs], with their weight in them
  std::vector<float> chances_;  // [pairs]: the sum of the parts
};

}  // namespace hearth
