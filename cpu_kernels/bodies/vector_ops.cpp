// Element-wise work between the matrices: activation, weighted sums, cache rows.
#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int64_t kLanes = FloatVec::size;

// Rounds to nearest even; NaNs keep a set mantissa bit.
uint16_t to_bfloat16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// silu(min(gate, clamp)) * clamp(up, -clamp, clamp); V is a vector or a float vector of one value.
FloatVec clamped_swiglu(FloatVec gate, FloatVec up, FloatVec clamp) {
  gate = xsimd::min(gate, clamp);
  up = xsimd::max(xsimd::min(up, clamp), -clamp);
  return gate / (FloatVec(1.0f) + xsimd::exp(-gate)) * up;
}

}  // namespace

void swiglu(const float* gate, const float* up, float clamp, int64_t n, float* out) {
  const FloatVec limit(clamp);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    clamped_swiglu(FloatVec::load_unaligned(gate + i), FloatVec::load_unaligned(up + i), limit)
        .store_unaligned(out + i);
  }
  if (i == n) return;
  // The tail goes through the same vector code, so that a value does not depend on its place.
  float gates[kLanes] = {}, ups[kLanes] = {}, outs[kLanes];
  for (int64_t j = i; j < n; ++j) gates[j - i] = gate[j], ups[j - i] = up[j];
  clamped_swiglu(FloatVec::load_unaligned(gates), FloatVec::load_unaligned(ups), limit)
      .store_unaligned(outs);
  for (int64_t j = i; j < n; ++j) out[j] = outs[j - i];
}

void weighted_sum(const float* rows, int64_t stride, const float* weights, int32_t n_rows,
                  int64_t width, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    FloatVec sum(0.0f);
    for (int32_t r = 0; r < n_rows; ++r) {
      sum = xsimd::fma(FloatVec(weights[r]), FloatVec::load_unaligned(rows + r * stride + i), sum);
    }
    sum.store_unaligned(out + i);
  }
  for (; i < width; ++i) {
    float sum = 0;
    for (int32_t r = 0; r < n_rows; ++r) {
      sum = __builtin_fmaf(weights[r], rows[r * stride + i], sum);
    }
    out[i] = sum;
  }
}

float softmax_terms(const float* x, float largest, float scale, int64_t n, float* out) {
  const auto term = [&](const float* at) {
    return xsimd::exp((FloatVec::load_unaligned(at) - FloatVec(largest)) * FloatVec(scale));
  };
  FloatVec sums(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const FloatVec terms = term(x + i);
    terms.store_unaligned(out + i);
    sums += terms;
  }
  float sum = xsimd::hadd(sums);
  if (i == n) return sum;
  float tail[kLanes] = {};
  for (int64_t j = i; j < n; ++j) tail[j - i] = x[j];
  term(tail).store_unaligned(tail);
  for (int64_t j = i; j < n; ++j) sum += out[j] = tail[j - i];
  return sum;
}

void store_kv(const float* x, int64_t n, KvType type, void* out) {
  if (type == KvType::kF32) {
    __builtin_memcpy(out, x, n * sizeof(float));
    return;
  }
  uint16_t* rounded = static_cast<uint16_t*>(out);
  for (int64_t i = 0; i < n; ++i) rounded[i] = to_bfloat16(x[i]);
}

}  // namespace hearth::HEARTH_ISA
