// 16-bit floats to and from float32, in integer arithmetic, so that every machine gives the same
// bits.
#include <bit>

#include "format/dequantize.h"

namespace hearth {
namespace {

constexpr uint32_t kFloatInfinity = 0x7f800000;

// value / 2^shift rounded to nearest, ties to even; 1 <= shift <= 31.
uint32_t shift_to_even(uint32_t value, int shift) {
  const uint32_t below_half = (uint32_t{1} << (shift - 1)) - 1;
  const uint32_t odd = (value >> shift) & 1;
  return (value + below_half + odd) >> shift;
}

}  // namespace

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  uint32_t fraction = half & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | kFloatInfinity | fraction << 13);
  if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  if (fraction == 0) return std::bit_cast<float>(sign);
  // Subnormal: fraction * 2^-24, normal as a float once the leading bit stands at bit 10.
  const int shift = std::countl_zero(fraction) - 21;
  fraction = (fraction << shift) & 0x3ff;
  return std::bit_cast<float>(sign | static_cast<uint32_t>(113 - shift) << 23 | fraction << 13);
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  const int exponent = static_cast<int>(magnitude >> 23) - 112;  // the half's, biased by 15
  if (magnitude > kFloatInfinity) {
    return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));  // quiet NaN
  }
  if (exponent >= 31) return static_cast<uint16_t>(sign | 0x7c00);
  // A carry out of the fraction moves into the exponent, which is just what rounding up means.
  if (exponent > 0) {
    return static_cast<uint16_t>(sign | (shift_to_even(magnitude, 13) - (112u << 10)));
  }
  if (exponent < -10) return static_cast<uint16_t>(sign);  // below half of the least subnormal
  const uint32_t significand = (magnitude & 0x7fffff) | 0x800000;
  return static_cast<uint16_t>(sign | shift_to_even(significand, 14 - exponent));
}

float bfloat16_to_float(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > kFloatInfinity) return static_cast<uint16_t>(bits >> 16 | 0x40);
  // No overflow: the largest value that is not NaN is -infinity, 0xff800000.
  return static_cast<uint16_t>(shift_to_even(bits, 16));
}

}  // namespace hearth
