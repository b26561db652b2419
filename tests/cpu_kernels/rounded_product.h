// What a product of values rounded to bfloat16 may be.
#pragma once

#include "cpu_kernels/matmul_case.h"

namespace hearth::test {

inline float to_bfloat16(float value) { return bfloat16_to_float(float_to_bfloat16(value)); }

// Checks y against the definition and against the exact product of rounded values.
//
// Rounding to bfloat16 is off by at most u = 2^-8 of a value, so a product w x of rounded values is
// off by at most (2 u + u^2) |w x|. That bounds y, but would also let pass an error in a few
// columns; so y must also be what the rounded values give, but for the float32 sums and for one
// weight that lies between two bfloat16 and went the other way (2 u of it).
inline void check_product(Case& c, const std::vector<float>& y,
                          const std::vector<int32_t>& rows_of_x,
                          const std::vector<int32_t>& rows_of_y, int64_t begin, int64_t end) {
  constexpr double u = 0x1p-8;
  std::vector<float> w(c.k), rounded_x(c.x_rows * c.k);
  for (int64_t i = 0; i < c.x_rows * c.k; ++i) rounded_x[i] = to_bfloat16(c.x[i]);
  double worst = 0, worst_rounded = 0;
  for (int64_t r = begin; r < end; ++r) {
    dequantize(c.type, c.weights.data() + r * row_bytes(c.type, c.k), c.k, w.data());
    std::vector<float> rounded_w = w;
    for (float& value : rounded_w) value = to_bfloat16(value);
    for (size_t i = 0; i < rows_of_x.size(); ++i) {
      const float* x = c.x.data() + rows_of_x[i] * c.k;
      const float* rounded = rounded_x.data() + rows_of_x[i] * c.k;
      double exact = 0, rounded_sum = 0, magnitude = 0, largest = 0;
      for (int64_t j = 0; j < c.k; ++j) {
        const double product = static_cast<double>(w[j]) * x[j];
        exact += product;
        rounded_sum += static_cast<double>(rounded_w[j]) * rounded[j];
        magnitude += std::abs(product);
        largest = std::max(largest, std::abs(product));
      }
      const double value = y[rows_of_y[i] * c.stride() + r];
      if (!std::isfinite(value)) FAIL("not finite");
      worst = std::max(worst, std::abs(value - exact) / ((2 * u + u * u) * magnitude));
      const double off = std::abs(value - rounded_sum);
      worst_rounded = std::max(worst_rounded, off / (4e-6 * magnitude + 2 * u * largest));
    }
  }
  CHECK(worst <= 1);
  CHECK(worst_rounded <= 1);
}

}  // namespace hearth::test
