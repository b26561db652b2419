// Unpacking of the K formats: blocks of 256, which are a step each.
#pragma once

#include "cpu_kernels/bodies/unpack.h"

namespace hearth::HEARTH_ISA {
namespace {

struct LargeBlocks {
  static constexpr int kBlock = 256;
  static constexpr int kGroup = 32;
  static constexpr bool kHasBias = false;
};

HEARTH_INLINE float load_half(const Byte* p) { return _cvtsh_ss(load_as<uint16_t>(p)); }

// Word i holds in its low byte the code i, as floats.
HEARTH_INLINE __m256 scaled(float d, __m256i codes) {
  return _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(codes));
}

// Sixteen group scales, two neighbours to a block.
HEARTH_INLINE void split_scales(float d, __m256i signed_words, __m256* out) {
  out[0] = scaled(d, _mm256_srai_epi32(_mm256_slli_epi32(signed_words, 16), 16));
  out[1] = scaled(d, _mm256_srai_epi32(signed_words, 16));
}

// Two bits of each code, fields of a byte shared by four blocks: block b lies at p + 32 (b / 4) in bits 2 (b % 4).
HEARTH_INLINE void unpack_bit_pairs(const Byte* p, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    const Byte* bytes = p + 32 * (v * kPieces / 4);
    const Bytes counts = per_piece([&](int i) { return 2 * ((v * kPieces + i) % 4); });
    w.lo[v] = shift_right(repeat_piece(load_piece(bytes)), counts) & splat(3);
    w.hi[v] = shift_right(repeat_piece(load_piece(bytes + 16)), counts) & splat(3);
  }
}

// Nibbles of Q4_K and Q5_K: two blocks share 32 bytes, the even one has the low nibbles.
HEARTH_INLINE void unpack_nibble_pairs(const Byte* p, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    const Byte* bytes = p + v * kPieces / 2 * 32;
    const Bytes counts = per_piece([](int i) { return 4 * (i % 2); });
    w.lo[v] = shift_right(load_pieces(bytes, [](int i) { return 32 * (i / 2); }), counts) & splat(15);
    w.hi[v] =
        shift_right(load_pieces(bytes, [](int i) { return 32 * (i / 2) + 16; }), counts) & splat(15);
  }
}

// One more bit of each code, at bit `place`: bit b of the 32 bytes that all blocks share belongs to block b.
template <int place>
HEARTH_INLINE void add_shared_bits(const Byte* p, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    const Bytes counts = per_piece([&](int i) { return v * kPieces + i; });
    auto bit = [&](const Byte* bytes) {
      const Bytes shifted = shift_right(repeat_piece(load_piece(bytes)), counts);
      return shift_left<place>(shifted) & splat(1 << place);
    };
    w.lo[v] |= bit(p);
    w.hi[v] |= bit(p + 16);
  }
}

template <>
struct Format<TensorType::kQ2_K> : LargeBlocks {
  static constexpr int kStepBytes = 84, kGroup = 16, kOffset = 0, kCodeMax = 3;
  static constexpr bool kHasBias = true;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_bit_pairs(p + 16, w);
    const __m256i scales = _mm256_cvtepu8_epi16(load_piece(p));
    const __m256i low_nibbles = _mm256_set1_epi16(15);
    split_scales(load_half(p + 80), scales & low_nibbles, w.scales);
    split_scales(-load_half(p + 82), _mm256_srli_epi16(scales, 4), w.biases);
  }
};

template <>
struct Format<TensorType::kQ3_K> : LargeBlocks {
  static constexpr int kStepBytes = 110, kGroup = 16, kOffset = 4, kCodeMax = 7;

  // Sixteen six-bit scales: nibbles of s[0 .. 8), then pairs of bits of s[8 .. 12).
  static HEARTH_INLINE __m128i unpack_scales(const Byte* s) {
    const __m128i low = _mm_cvtsi64_si128(load_as<int64_t>(s));
    const __m128i nibbles = _mm_unpacklo_epi64(low, _mm_srli_epi64(low, 4)) & _mm_set1_epi8(15);
    const __m128i shared = _mm_set1_epi32(load_as<int32_t>(s + 8));
    const __m128i pairs = _mm_srlv_epi32(shared, _mm_setr_epi32(0, 2, 4, 6)) & _mm_set1_epi8(3);
    return _mm_sub_epi8(nibbles | _mm_slli_epi32(pairs, 4), _mm_set1_epi8(32));
  }

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_bit_pairs(p + 32, w);
    add_shared_bits<2>(p, w);
    split_scales(load_half(p + 108), _mm256_cvtepi8_epi16(unpack_scales(p + 96)), w.scales);
  }
};

// Q4_K and Q5_K: six-bit scales and minima of eight groups in twelve bytes.
HEARTH_INLINE void unpack_scales_and_minima(const Byte* p, Weights& w) {
  const uint32_t a = load_as<uint32_t>(p + 4), b = load_as<uint32_t>(p + 8), c = load_as<uint32_t>(p + 12);
  constexpr uint32_t kSixBits = 0x3f3f3f3f, kNibbles = 0x0f0f0f0f, kTopBits = 0x30303030;
  auto words = [](uint32_t first, uint32_t second) {
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(
        static_cast<int64_t>(static_cast<uint64_t>(second) << 32 | first)));
  };
  w.scales[0] = scaled(load_half(p), words(a & kSixBits, (c & kNibbles) | ((a >> 2) & kTopBits)));
  w.biases[0] =
      scaled(-load_half(p + 2), words(b & kSixBits, ((c >> 4) & kNibbles) | ((b >> 2) & kTopBits)));
}

template <>
struct Format<TensorType::kQ4_K> : LargeBlocks {
  static constexpr int kStepBytes = 144, kOffset = 0, kCodeMax = 15;
  static constexpr bool kHasBias = true;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibble_pairs(p + 16, w);
    unpack_scales_and_minima(p, w);
  }
};

template <>
struct Format<TensorType::kQ5_K> : LargeBlocks {
  static constexpr int kStepBytes = 176, kOffset = 0, kCodeMax = 31;
  static constexpr bool kHasBias = true;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibble_pairs(p + 48, w);
    add_shared_bits<4>(p + 16, w);
    unpack_scales_and_minima(p, w);
  }
};

template <>
struct Format<TensorType::kQ6_K> : LargeBlocks {
  static constexpr int kStepBytes = 210, kGroup = 16, kOffset = 32, kCodeMax = 63;

  // Block b = 4 h + k: low nibbles at 64 h + 32 (k % 2), the upper half of a byte for k >= 2; two high bits at
  // 128 + 32 h, bits 2 k.
  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    for (int v = 0; v < kVectors; ++v) {
      const int first = v * kPieces;
      const Byte* lows = p + 64 * (first / 4);
      const Byte* highs = p + 128 + 32 * (first / 4);
      const Bytes low_counts = per_piece([&](int i) { return (first + i) % 4 < 2 ? 0 : 4; });
      const Bytes high_counts = per_piece([&](int i) { return 2 * ((first + i) % 4); });
      auto codes = [&](int half) {
        const Bytes low =
            load_pieces(lows, [&](int i) { return 32 * ((first + i) % 2) + 16 * half; });
        const Bytes high = shift_right(repeat_piece(load_piece(highs + 16 * half)), high_counts);
        return (shift_right(low, low_counts) & splat(15)) | (shift_left<4>(high) & splat(0x30));
      };
      w.lo[v] = codes(0);
      w.hi[v] = codes(1);
    }
    split_scales(load_half(p + 208), _mm256_cvtepi8_epi16(load_piece(p + 192)), w.scales);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
