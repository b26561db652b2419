// From packed bits to signed bytes, four in a word: what the formats' unpacking shares.
#pragma once

#include "gpu_kernels/common/numbers.h"

namespace hearth::HEARTH_GPU {

// Each byte, below 128, less that of `offset`, at most 128: the borrow stays in the byte.
__device__ __forceinline__ uint32_t subtract_each(uint32_t codes, uint32_t offset) {
  return ((codes | 0x80808080u) - offset) ^ 0x80808080u;
}

// Bit i of the lowest four to the lowest bit of byte i.
__device__ __forceinline__ uint32_t spread_bits(uint32_t bits) {
  return (bits & 15) * 0x00204081u & 0x01010101u;
}

// Byte i, which is not 0, negative where bit i is set.
__device__ __forceinline__ uint32_t negate_where(uint32_t codes, uint32_t bits) {
  const uint32_t ones = spread_bits(bits);
  return (codes ^ ones * 255) + ones;
}

// Sixteen bytes whose low nibbles are the codes of the first 16 weights.
__device__ __forceinline__ void split_nibbles(const uint32_t (&nibbles)[4], uint32_t (&codes)[8]) {
  HEARTH_UNROLL
  for (int i = 0; i < 4; ++i) {
    codes[i] = nibbles[i] & 0x0f0f0f0f;
    codes[i + 4] = nibbles[i] >> 4 & 0x0f0f0f0f;
  }
}

// The same with a fifth bit, bit i of `fifths` for weight i.
__device__ __forceinline__ void split_five_bits(const uint32_t (&nibbles)[4], uint32_t fifths,
                                                uint32_t (&codes)[8]) {
  split_nibbles(nibbles, codes);
  HEARTH_UNROLL
  for (int i = 0; i < 8; ++i) codes[i] |= spread_bits(fifths >> (4 * i)) << 4;
}

// The values of the four nibbles in the low half of `codes`. V has them in four words of signed
// bytes, kWord0 .. kWord3.
template <typename V>
__device__ __forceinline__ uint32_t look_up(uint32_t codes) {
  const uint32_t places = codes & 0x7777;
  const uint32_t half_picks = 0x3210 | (codes & 0x8888) >> 1;
  return pick_bytes(pick_bytes(V::kWord0, V::kWord1, places),
                    pick_bytes(V::kWord2, V::kWord3, places), half_picks);
}

// As split_nibbles, each code's value.
template <typename V>
__device__ __forceinline__ void look_up_nibbles(const uint32_t (&nibbles)[4],
                                                uint32_t (&codes)[8]) {
  HEARTH_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t first = look_up<V>(nibbles[i]), last = look_up<V>(nibbles[i] >> 16);
    codes[i] = pick_bytes(first, last, 0x6420);
    codes[i + 4] = pick_bytes(first, last, 0x7531);
  }
}

}  // namespace hearth::HEARTH_GPU
