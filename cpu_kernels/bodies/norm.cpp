// Root-mean-square norm.
#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int64_t kLanes = FloatVec::size;

float sum_of_squares(const float* x, int64_t k) {
  FloatVec even(0.0f), odd(0.0f);
  int64_t i = 0;
  for (; i + 2 * kLanes <= k; i += 2 * kLanes) {
    const FloatVec a = FloatVec::load_unaligned(x + i);
    const FloatVec b = FloatVec::load_unaligned(x + i + kLanes);
    even = xsimd::fma(a, a, even);
    odd = xsimd::fma(b, b, odd);
  }
  float sum = xsimd::hadd(even + odd);
  for (; i < k; ++i) sum += x[i] * x[i];
  return sum;
}

void scale_row(const float* x, const float* gain, float factor, int64_t k, float* y) {
  const FloatVec factors(factor);
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    FloatVec value = FloatVec::load_unaligned(x + i) * factors;
    if (gain != nullptr) value *= FloatVec::load_unaligned(gain + i);
    value.store_unaligned(y + i);
  }
  for (; i < k; ++i) y[i] = x[i] * factor * (gain != nullptr ? gain[i] : 1.0f);
}

}  // namespace

void rms_norm(const float* x, const float* gain, float eps, int64_t n, int64_t k, float* y) {
  for (int64_t row = 0; row < n; ++row) {
    const float mean = sum_of_squares(x + row * k, k) / static_cast<float>(k);
    scale_row(x + row * k, gain, 1.0f / __builtin_sqrtf(mean + eps), k, y + row * k);
  }
}

}  // namespace hearth::HEARTH_ISA
