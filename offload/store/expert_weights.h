// The three matrices of an expert, or of all experts of a layer stacked one after the other.
#pragma once

#include "base/tensor_type.h"

namespace hearth {

struct ExpertWeights {
  Matrix gate;  // [expert_dim, D] per expert
  Matrix up;    // [expert_dim, D]
  Matrix down;  // [D, expert_dim]
};

// The view of expert `e` in a stack of `experts` of them.
Matrix expert_slice(const Matrix& stack, int32_t experts, int32_t e);

}  // namespace hearth
