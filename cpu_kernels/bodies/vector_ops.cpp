// Element-wise work between the matrices: activation, weighted sums, cache rows.
#include <immintrin.h>

#include "base/softmax.h"
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

// a * b + c, rounded once, whatever the compiler makes of sums of products: xsimd leaves it to it
// with AVX-512.
FloatVec fused(FloatVec a, FloatVec b, FloatVec c) {
#ifdef __AVX512F__
  return _mm512_fmadd_ps(a, b, c);
#else
  return xsimd::fma(a, b, c);
#endif
}

// As base/softmax.h has it.
FloatVec exp_below_zero(FloatVec t) {
  const FloatVec k = xsimd::nearbyint(t * FloatVec(kPerLn2));
  FloatVec r = fused(-k, FloatVec(kLn2High), t);
  r = fused(-k, FloatVec(kLn2Low), r);
  FloatVec sum(kExp7);
  for (const float factor : {kExp6, kExp5, kExp4, kExp3, kExp2, 1.0f, 1.0f})
    sum = fused(sum, r, FloatVec(factor));
  return xsimd::select(t >= FloatVec(kExpLowest), xsimd::ldexp(sum, xsimd::to_int(k)),
                       FloatVec(0.0f));
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
  constexpr int64_t kVectors = kSoftmaxLanes / kLanes;
  FloatVec sums[kVectors];
  for (FloatVec& sum : sums) sum = FloatVec(0.0f);
  const auto take = [&](const float* from, float* to) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const FloatVec at = FloatVec::load_unaligned(from + v * kLanes);
      const FloatVec terms = exp_below_zero((at - FloatVec(largest)) * FloatVec(scale));
      terms.store_unaligned(to + v * kLanes);
      sums[v] += terms;
    }
  };
  int64_t i = 0;
  for (; i + kSoftmaxLanes <= n; i += kSoftmaxLanes) take(x + i, out + i);
  float lanes[kSoftmaxLanes];
  if (i < n) {
    for (float& lane : lanes) lane = -__builtin_inff();  // whose terms are 0
    for (int64_t j = i; j < n; ++j) lanes[j - i] = x[j];
    take(lanes, lanes);
    for (int64_t j = i; j < n; ++j) out[j] = lanes[j - i];
  }
  for (int64_t v = 0; v < kVectors; ++v) sums[v].store_unaligned(lanes + v * kLanes);
  for (int half = kSoftmaxLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
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
