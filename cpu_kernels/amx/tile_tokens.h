// From how many tokens of a prompt on a format is multiplied in tiles.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"

namespace hearth::HEARTH_ISA {
namespace {

// For fewer, AVX-512's dot products are faster than unpacking to bfloat16, by how long a format
// takes for either.
constexpr int64_t tile_tokens_min(TensorType type) {
  switch (type) {
    case TensorType::kMXFP4:
    case TensorType::kIQ2_S:
    case TensorType::kIQ3_XXS:
    case TensorType::kIQ3_S:
    case TensorType::kF16:
    case TensorType::kBF16:
      return 4;
    case TensorType::kQ8_0:
      return 8;
    case TensorType::kIQ2_XXS:
      return 16;
    default:
      return 24;
  }
}

}  // namespace
}  // namespace hearth::HEARTH_ISA
