// Weights back to float32, exactly as the formats define them: plain loops, the one place that
// fixes the meaning of every block layout for tables, small vectors and the reference model. The
// fast kernels are tested against it.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

// `count` weights (a multiple of the block size) from `blocks` to `out`. I32 values convert to
// float.
void dequantize(TensorType type, const unsigned char* blocks, int64_t count, float* out);

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);      // rounds to nearest even
uint16_t float_to_bfloat16(float value);  // rounds to nearest even
float bfloat16_to_float(uint16_t value);

}  // namespace hearth
