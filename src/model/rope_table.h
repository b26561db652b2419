// Angles of the rotary embedding, plain and with YaRN's stretched frequencies.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace hearth {

class RopeTable {
 public:
  RopeTable(const RopeScaling& scaling, int32_t rope_dim);

  // Cosines and sines [rope_dim / 2] of a position.
  void angles(int64_t position, float* cosines, float* sines) const;
  int32_t pairs() const { return static_cast<int32_t>(frequencies_.size()); }
  const std::vector<double>& frequencies() const { return frequencies_; }  // radians a position

 private:
  std::vector<double> frequencies_;  // radians a position, one per pair
};

}  // namespace hearth
