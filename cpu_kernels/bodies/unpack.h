// Unpacking of the weight formats, the ones with blocks of 32 here, the others in unpack_k.h and unpack_iq.h.
// A format turns a step of 256 weights into unsigned 8-bit codes and float scales:
//   weight = scale * (code - kOffset) + bias,  the bias only where kHasBias
// with one scale (and bias) for each kGroup weights, 16 or 32.
#pragma once

#include "base/codebooks.h"
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {
namespace {

// A step of one row. Of the pairs, [0] belongs to the first and [1] to the last 16 weights of each block; groups of
// 32 use [0] alone.
struct Weights {
  Bytes lo[kVectors];  // codes, arranged in halves
  Bytes hi[kVectors];
  __m256 scales[2];
  __m256 biases[2];
};

// Format<type> has:
//   kBlock     weights a stored block, 32 or 256
//   kStepBytes bytes of a step
//   kGroup, kOffset, kHasBias as above; kCodeMax, the largest code
//   unpack     bytes of a step -> Weights
template <TensorType type>
struct Format;

struct SmallBlocks {
  static constexpr int kBlock = 32;
  static constexpr int kGroup = 32;
  static constexpr bool kHasBias = false;
};

// Eight halves, `stride` bytes apart.
HEARTH_INLINE __m256 load_halves(const Byte* p, int stride) {
  auto half = [&](int i) { return static_cast<short>(load_as<uint16_t>(p + i * stride)); };
  return _mm256_cvtph_ps(
      _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)));
}

// The low and high nibbles of 16 bytes for each block of a step, `stride` bytes apart.
HEARTH_INLINE void unpack_nibbles(const Byte* p, int stride, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    const Bytes packed = load_pieces(p + v * kPieces * stride, [&](int i) { return i * stride; });
    w.lo[v] = packed & splat(15);
    w.hi[v] = shift_right<4>(packed) & splat(15);
  }
}

// Adds 16 to code i where bit i of the block's word is set; words `stride` bytes apart.
HEARTH_INLINE void add_fifth_bits(const Byte* p, int stride, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    auto bits = [&](int half) {
      uint64_t all = 0;
      for (int i = 0; i < kPieces; ++i) {
        const Byte* word = p + (v * kPieces + i) * stride + 2 * half;
        all |= static_cast<uint64_t>(load_as<uint16_t>(word)) << (16 * i);
      }
      return all;
    };
    w.lo[v] |= keep_where(bits(0), splat(16));
    w.hi[v] |= keep_where(bits(1), splat(16));
  }
}

HEARTH_INLINE void look_up_all(__m128i table, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    w.lo[v] = look_up(table, w.lo[v]);
    w.hi[v] = look_up(table, w.hi[v]);
  }
}

// A table of signed values as codes.
HEARTH_INLINE __m128i code_table(const int8_t* values, int offset) {
  return _mm_add_epi8(load_piece(reinterpret_cast<const Byte*>(values)),
                      _mm_set1_epi8(static_cast<char>(offset)));
}

template <>
struct Format<TensorType::kMXFP4> : SmallBlocks {
  static constexpr int kStepBytes = 136, kOffset = 12, kCodeMax = 24;

  // 2^(e - 128), from the bits: subnormal for e < 2.
  static HEARTH_INLINE __m256 power_of_two(__m256i e) {
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, small));
  }

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 1, 17, w);
    look_up_all(code_table(kMxfp4Values, kOffset), w);
    uint64_t exponents = 0;
    for (int b = 0; b < kStepBlocks; ++b) exponents |= static_cast<uint64_t>(p[17 * b]) << (8 * b);
    w.scales[0] = power_of_two(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(exponents))));
  }
};

template <>
struct Format<TensorType::kQ8_0> : SmallBlocks {
  static constexpr int kStepBytes = 272, kOffset = 128, kCodeMax = 255;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    for (int v = 0; v < kVectors; ++v) {
      const Byte* blocks = p + 2 + v * kPieces * 34;
      w.lo[v] = load_pieces(blocks, [](int i) { return 34 * i; }) ^ splat(0x80);
      w.hi[v] = load_pieces(blocks, [](int i) { return 34 * i + 16; }) ^ splat(0x80);
    }
    w.scales[0] = load_halves(p, 34);
  }
};

template <>
struct Format<TensorType::kQ4_0> : SmallBlocks {
  static constexpr int kStepBytes = 144, kOffset = 8, kCodeMax = 15;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 2, 18, w);
    w.scales[0] = load_halves(p, 18);
  }
};

template <>
struct Format<TensorType::kQ4_1> : SmallBlocks {
  static constexpr int kStepBytes = 160, kOffset = 0, kCodeMax = 15;
  static constexpr bool kHasBias = true;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 4, 20, w);
    w.scales[0] = load_halves(p, 20);
    w.biases[0] = load_halves(p + 2, 20);
  }
};

template <>
struct Format<TensorType::kQ5_0> : SmallBlocks {
  static constexpr int kStepBytes = 176, kOffset = 16, kCodeMax = 31;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 6, 22, w);
    add_fifth_bits(p + 2, 22, w);
    w.scales[0] = load_halves(p, 22);
  }
};

template <>
struct Format<TensorType::kQ5_1> : SmallBlocks {
  static constexpr int kStepBytes = 192, kOffset = 0, kCodeMax = 31;
  static constexpr bool kHasBias = true;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 8, 24, w);
    add_fifth_bits(p + 4, 24, w);
    w.scales[0] = load_halves(p, 24);
    w.biases[0] = load_halves(p + 2, 24);
  }
};

template <>
struct Format<TensorType::kIQ4_NL> : SmallBlocks {
  static constexpr int kStepBytes = 144, kOffset = 128, kCodeMax = 255;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 2, 18, w);
    look_up_all(code_table(kIq4Values, kOffset), w);
    w.scales[0] = load_halves(p, 18);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
