// Unpacking of the K formats: blocks of 256, which are a step each.
#pragma once

#include "cpu_kernels/bodies/unpack.h"

namespace hearth::HEARTH_ISA {
namespace {

struct LargeBlocks {
  static constexpr int kBlock = 256;
  static constexpr int kGroup = 32;
  static constexpr float kFactor = 1.0f;
  static constexpr bool kHasBias = false;
};

HEARTH_INLINE float load_half(const Byte* p) { return _cvtsh_ss(load_as<uint16_t>(p)); }

// d * codes.
HEARTH_INLINE __m256 scaled(float d, __m256i codes) {
  return _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(codes));
}

// Sixteen signed 16-bit scales in order: two neighbours to a block.
HEARTH_INLINE void split_scales(float d, __m256i codes, __m256* out) {
  out[0] = scaled(d, _mm256_srai_epi32(_mm256_slli_epi32(codes, 16), 16));
  out[1] = scaled(d, _mm256_srai_epi32(codes, 16));
}

// Two bits of each code: four blocks share 32 bytes, each has a field of two bits.
template <int start, typename Blocks>
HEARTH_INLINE Codes unpack_bit_pairs(const Blocks& blocks) {
  const Bytes counts = word_each(blocks, [](int b) { return 2 * (b % 4); });
  const Bytes lo = load_shared(blocks, [](int b) { return start + 32 * (b / 4); });
  const Bytes hi = load_shared(blocks, [](int b) { return start + 32 * (b / 4) + 16; });
  return {shift_right(lo, counts) & splat(3), shift_right(hi, counts) & splat(3)};
}

// Nibbles of Q4_K and Q5_K: two blocks share 32 bytes, the even one has the low nibbles.
template <int start, typename Blocks>
HEARTH_INLINE Codes unpack_nibble_pairs(const Blocks& blocks) {
  const Bytes counts = word_each(blocks, [](int b) { return 4 * (b % 2); });
  const Bytes lo = load_each(blocks, [](int b) { return start + 32 * (b / 2); });
  const Bytes hi = load_each(blocks, [](int b) { return start + 32 * (b / 2) + 16; });
  return {shift_right(lo, counts) & splat(15), shift_right(hi, counts) & splat(15)};
}

// One more bit of each code, at bit `place`: bit b of the 32 bytes that all blocks share belongs to
// block b.
template <int start, int place, typename Blocks>
HEARTH_INLINE Codes add_shared_bits(const Blocks& blocks, const Codes& codes) {
  const Bytes counts = word_each(blocks, [](int b) { return b; });
  const Bytes lo = shift_right(load_shared(blocks, [](int) { return start; }), counts);
  const Bytes hi = shift_right(load_shared(blocks, [](int) { return start + 16; }), counts);
  const Bytes mask = splat(1 << place);
  return {codes.lo | (shift_left<place>(lo) & mask), codes.hi | (shift_left<place>(hi) & mask)};
}

template <>
struct Format<TensorType::kQ2_K> : LargeBlocks {
  static constexpr int kStepBytes = 84, kGroup = 16, kOffset = 0, kCodeMax = 3;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_bit_pairs<16>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m256i packed = _mm256_cvtepu8_epi16(load_piece(step));
    split_scales(load_half(step + 80), packed & _mm256_set1_epi16(15), s.scales);
    split_scales(-load_half(step + 82), _mm256_srli_epi16(packed, 4), s.biases);
  }
};

template <>
struct Format<TensorType::kQ3_K> : LargeBlocks {
  static constexpr int kStepBytes = 110, kGroup = 16, kOffset = 4, kCodeMax = 7;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return add_shared_bits<0, 2>(blocks, unpack_bit_pairs<32>(blocks));
  }
  // Sixteen six-bit scales: nibbles of eight bytes, then pairs of bits of four.
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m128i low = _mm_cvtsi64_si128(load_as<int64_t>(step + 96));
    const __m128i nibbles = _mm_unpacklo_epi64(low, _mm_srli_epi64(low, 4)) & _mm_set1_epi8(15);
    const __m128i shared = _mm_set1_epi32(load_as<int32_t>(step + 104));
    const __m128i pairs = _mm_srlv_epi32(shared, _mm_setr_epi32(0, 2, 4, 6)) & _mm_set1_epi8(3);
    const __m128i codes = _mm_sub_epi8(nibbles | _mm_slli_epi32(pairs, 4), _mm_set1_epi8(32));
    split_scales(load_half(step + 108), _mm256_cvtepi8_epi16(codes), s.scales);
  }
};

// Q4_K and Q5_K: six-bit scales and minima of eight groups in twelve bytes.
HEARTH_INLINE void unpack_scales_and_minima(const Byte* step, Scales& s) {
  constexpr uint32_t kSixBits = 0x3f3f3f3f, kNibbles = 0x0f0f0f0f, kTopBits = 0x30303030;
  const uint32_t a = load_as<uint32_t>(step + 4), b = load_as<uint32_t>(step + 8),
                 c = load_as<uint32_t>(step + 12);
  auto words = [](uint32_t first, uint32_t second) {
    const uint64_t bytes = static_cast<uint64_t>(second) << 32 | first;
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  };
  const __m256i scales = words(a & kSixBits, (c & kNibbles) | ((a >> 2) & kTopBits));
  const __m256i minima = words(b & kSixBits, ((c >> 4) & kNibbles) | ((b >> 2) & kTopBits));
  s.scales[0] = scaled(load_half(step), scales);
  s.biases[0] = scaled(-load_half(step + 2), minima);
}

template <>
struct Format<TensorType::kQ4_K> : LargeBlocks {
  static constexpr int kStepBytes = 144, kOffset = 0, kCodeMax = 15;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_nibble_pairs<16>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    unpack_scales_and_minima(step, s);
  }
};

template <>
struct Format<TensorType::kQ5_K> : LargeBlocks {
  static constexpr int kStepBytes = 176, kOffset = 0, kCodeMax = 31;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return add_shared_bits<16, 4>(blocks, unpack_nibble_pairs<48>(blocks));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    unpack_scales_and_minima(step, s);
  }
};

template <>
struct Format<TensorType::kQ6_K> : LargeBlocks {
  static constexpr int kStepBytes = 210, kGroup = 16, kOffset = 32, kCodeMax = 63;

  // Block b = 4 h + k: low nibbles at 64 h + 32 (k % 2), the upper half of a byte for k >= 2; two
  // high bits at 128 + 32 h, bits 2 k.
  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Bytes low_counts = word_each(blocks, [](int b) { return b % 4 < 2 ? 0 : 4; });
    const Bytes high_counts = word_each(blocks, [](int b) { return 2 * (b % 4); });
    auto half = [&](int start) {
      const Bytes low =
          load_each(blocks, [&](int b) { return 64 * (b / 4) + 32 * (b % 2) + start; });
      const Bytes high = load_shared(blocks, [&](int b) { return 128 + 32 * (b / 4) + start; });
      return (shift_right(low, low_counts) & splat(15)) |
             (shift_left<4>(shift_right(high, high_counts)) & splat(0x30));
    };
    return {half(0), half(16)};
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    split_scales(load_half(step + 208), _mm256_cvtepi8_epi16(load_piece(step + 192)), s.scales);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
