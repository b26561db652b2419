// The three matrices of an expert, or of all experts of a layer stacked one after the other.
#pragma once

#include <array>
#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

struct ExpertWeights {
  Matrix gate;  // [expert_dim, D] per expert
  Matrix up;    // [expert_dim, D]
  Matrix down;  // [D, expert_dim]
};

// Where a stack begins in its file.
struct StackPlace {
  int32_t file;
  int64_t offset;  // bytes
};

// A layer's routed experts: their stacks, and where these lie in the model's files. A stack's data
// may be null where it is only read from there.
struct LayerExperts {
  ExpertWeights stacks;
  std::array<StackPlace, 3> places;  // gate, up, down
};

// The view of expert `e` in a stack of `experts` of them.
Matrix expert_slice(const Matrix& stack, int32_t experts, int32_t e);

}  // namespace hearth
