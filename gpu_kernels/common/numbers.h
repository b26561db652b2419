// 16-bit floats to float32 and back, words from bytes of any alignment, sums over a warp: the same
// on device and host but for single instructions.
#pragma once

#include "gpu_kernels/common/simt.h"

namespace hearth::HEARTH_GPU {

__device__ __forceinline__ float bits_to_float(uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  return __builtin_bit_cast(float, bits);
#endif
}

__device__ __forceinline__ uint32_t float_to_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  return __builtin_bit_cast(uint32_t, value);
#endif
}

__device__ __forceinline__ float half_to_float(uint16_t half) {
#ifdef __CUDACC__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // Exact: the float's exponent range holds the half's, its fraction the product.
  const float value = bits_to_float(magnitude << 13) * 0x1p112f;
  return bits_to_float(sign | float_to_bits(value));
#endif
}

__device__ __forceinline__ float bfloat16_to_float(uint32_t value) {
  return bits_to_float(value << 16);
}

// Rounds to nearest even.
__device__ __forceinline__ uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Two of them in a word, `low` in the lower half.
__device__ __forceinline__ uint32_t pack_bfloat16s(float low, float high) {
#ifdef __CUDACC__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return float_to_bfloat16(low) | static_cast<uint32_t>(float_to_bfloat16(high)) << 16;
#endif
}

// To nearest, ties to even; NaN to 0.
__device__ __forceinline__ int32_t round_to_int(float value) {
#ifdef __CUDACC__
  return __float2int_rn(value);
#else
  return value == value ? static_cast<int32_t>(nearbyintf(value)) : 0;
#endif
}

// 2^(exponent - 127), subnormal for 0; NaN for 255.
__device__ __forceinline__ float power_of_two(uint32_t exponent) {
  if (exponent == 255) return bits_to_float(0x7fc00000);
  return bits_to_float(exponent == 0 ? 0x00400000u : exponent << 23);
}

// Byte i as a signed number. With its sign bit turned it is the lowest of a float's bits that count
// ones: cheaper than a conversion.
__device__ __forceinline__ float signed_byte_to_float(uint32_t word, int i) {
  const uint32_t bits = pick_bytes(word ^ 0x80808080u, 0x4b000000u, 0x7440u + i);
  return bits_to_float(bits) - (0x1p23f + 128);
}

// A word at any address, from the two aligned words it lies in: the memory must hold the whole of
// both, as staged weights do.
__device__ __forceinline__ uint32_t load_word(const unsigned char* bytes) {
  const uint32_t beside = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(bytes) & 3);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(bytes - beside);
  return pick_bytes(words[0], words[1], 0x3210u + 0x1111u * beside);
}

// `count` words in turn, with one read each and one more.
template <int kCount>
__device__ __forceinline__ void load_words(const unsigned char* bytes, uint32_t (&out)[kCount]) {
  const uint32_t beside = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(bytes) & 3);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(bytes - beside);
  const uint32_t selectors = 0x3210u + 0x1111u * beside;
  uint32_t low = words[0];
  for (int i = 0; i < kCount; ++i) {
    const uint32_t high = words[i + 1];
    out[i] = pick_bytes(low, high, selectors);
    low = high;
  }
}

// Two bytes at any address.
__device__ __forceinline__ uint16_t load_pair(const unsigned char* bytes) {
  return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

__device__ __forceinline__ int32_t count_bits(uint32_t bits) {
#ifdef __CUDACC__
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// The sum over all lanes, in every lane, the same way in each of them.
__device__ __forceinline__ float warp_sum(float value) {
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The sums over all lanes of kCount values, a power of two: of value i in the i-th 32 / kCount
// lanes. Each step but the last ones halves how many values a lane carries; what is added to what
// does not depend on their number.
template <int kCount, int kDistance = kWarpLanes / 2>
__device__ __forceinline__ float sum_lanes(const float (&values)[kCount]) {
  if constexpr (kCount == 1) {
    float sum = values[0];
    HEARTH_UNROLL
    for (int distance = kDistance; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    return sum;
  } else {
    const bool upper = (threadIdx.x & kDistance) != 0;
    float half[kCount / 2];
    HEARTH_UNROLL
    for (int i = 0; i < kCount / 2; ++i) {
      const float kept = upper ? values[i + kCount / 2] : values[i];
      const float given = upper ? values[i] : values[i + kCount / 2];
      half[i] = kept + __shfl_xor_sync(kAllLanes, given, kDistance);
    }
    return sum_lanes<kCount / 2, kDistance / 2>(half);
  }
}

// The sum over a block of kThreads, in every thread; `sums`, one a warp, is its own shared memory.
template <uint32_t kThreads>
__device__ __forceinline__ float block_sum(float value, float* sums) {
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  float sum = 0;
  for (uint32_t i = 0; i < kThreads / kWarpLanes; ++i) sum += sums[i];
  return sum;
}

}  // namespace hearth::HEARTH_GPU
