// Data for measurements: random, so that nothing in the hardware finds it easier than weights.
#pragma once

#include <cstdint>
#include <vector>

#include "base/tensor_type.h"

namespace hearth::bench {

// Whole blocks of weights, random but finite, below 2 in their scales.
std::vector<unsigned char> random_weights(TensorType type, int64_t bytes);

// Within -1 .. 1.
std::vector<float> random_floats(int64_t count);

// For each of `rows`, `count` different numbers below `end`, ascending.
std::vector<int32_t> random_choices(int64_t rows, int64_t count, int64_t end);

}  // namespace hearth::bench
