// Unpacking of the IQ formats with blocks of 256: values from tables, or rows of magnitudes with
// their signs apart.
#pragma once

#include "cpu_kernels/bodies/unpack_k.h"

namespace hearth::HEARTH_ISA {
namespace {

template <>
struct Format<TensorType::kIQ4_XS> : LargeBlocks {
  static constexpr int kStepBytes = 136, kOffset = 128, kCodeMax = 255;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return look_up_nibbles<8, 16>(kIq4Values, kOffset, blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m256i block = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<int32_t>(step + 4)),
                                          _mm256_slli_epi32(block, 2));
    const __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<uint16_t>(step + 2)),
                                           _mm256_slli_epi32(block, 1));
    const __m256i code =
        (low & _mm256_set1_epi32(15)) | _mm256_slli_epi32(high & _mm256_set1_epi32(3), 4);
    s.scales[0] = scaled(load_half(step), _mm256_sub_epi32(code, _mm256_set1_epi32(32)));
  }
};

// Formats with codebooks: magnitudes up to 62 with their signs, and 64 added.
struct CodebookBlocks : LargeBlocks {
  static constexpr int kOffset = 64, kCodeMax = 126;
};

// Magnitudes in rows of eight: row(step, block, r) has weights 8 r .. 8 r + 7 of a block.
template <typename Blocks, typename F>
HEARTH_INLINE Codes look_up_rows(const Blocks& blocks, F row) {
  auto half = [&](int first) {
    return from_pairs([&](int i) {
      return static_cast<int64_t>(row(blocks.step(i / 2), blocks.block(i / 2), first + i % 2));
    });
  };
  return {half(0), half(2)};
}

// Magnitudes in rows of four.
template <typename Blocks, typename F>
HEARTH_INLINE Codes look_up_short_rows(const Blocks& blocks, F row) {
  auto half = [&](int first) {
    return from_words([&](int i) {
      return static_cast<int32_t>(row(blocks.step(i / 4), blocks.block(i / 4), first + i % 4));
    });
  };
  return {half(0), half(4)};
}

// Sign bytes lie in every `stride`-th byte of a piece.
template <int stride>
HEARTH_INLINE Codes with_signs(const Codes& magnitudes, Bytes signs) {
  const Bytes offset = splat(CodebookBlocks::kOffset);
  const Bytes lo = spread_bytes<0, stride>(signs), hi = spread_bytes<2 * stride, 3 * stride>(signs);
  return {add_bytes(negate_where(lo, magnitudes.lo), offset),
          add_bytes(negate_where(hi, magnitudes.hi), offset)};
}

// Bytes of seven sign bits to eight: the eighth is their parity.
HEARTH_INLINE Bytes add_parity(Bytes sevens) {
  constexpr int64_t kTable = static_cast<int64_t>(0x8000008000808000);  // bit 7: parity of index
  const __m128i table = _mm_set_epi64x(~kTable & (kEveryByte << 7), kTable);
  return sevens |
         (look_up(table, sevens & splat(15)) ^ look_up(table, shift_right<4>(sevens) & splat(15)));
}

// Four times seven sign bits in the low bits of a word to four bytes.
HEARTH_INLINE Bytes unpack_sevens(Bytes words) {
  const Bytes first = words & splat_word(0x7f), second = shift_left<1>(words) & splat_word(0x7f00);
  const Bytes third = shift_left<2>(words) & splat_word(0x7f0000);
  const Bytes fourth = shift_left<3>(words) & splat_word(0x7f000000);
  return add_parity(first | second | third | fourth);
}

// d (0.5 + code).
HEARTH_INLINE __m256 half_step_scales(float d, __m256i codes) {
  const __m256 shifted = _mm256_add_ps(_mm256_cvtepi32_ps(codes), _mm256_set1_ps(0.5f));
  return _mm256_mul_ps(_mm256_set1_ps(d), shifted);
}

// IQ2_XS and IQ2_S: a byte for each block, the low nibble for its first half.
HEARTH_INLINE void unpack_nibble_scales(float d, const Byte* p, Scales& s) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(p)));
  s.scales[0] = half_step_scales(0.25f * d, bytes & _mm256_set1_epi32(15));
  s.scales[1] = half_step_scales(0.25f * d, _mm256_srli_epi32(bytes, 4));
}

template <>
struct Format<TensorType::kIQ2_XXS> : CodebookBlocks {
  static constexpr int kStepBytes = 66;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Codes rows = look_up_rows(
        blocks, [](const Byte* step, int b, int r) { return kIq2XxsRows[step[2 + 8 * b + r]]; });
    const Bytes packed = load_words(blocks, [](int b) { return 2 + 8 * b + 4; });
    return with_signs<1>(rows, unpack_sevens(packed));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m256i nibbles = _mm256_srli_epi32(load_eight_bytes(step + 2 + 7, 8), 4);
    s.scales[0] = half_step_scales(0.25f * load_half(step), nibbles);
  }
};

template <>
struct Format<TensorType::kIQ2_XS> : CodebookBlocks {
  static constexpr int kStepBytes = 74, kGroup = 16;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Codes rows = look_up_rows(blocks, [](const Byte* step, int b, int r) {
      return kIq2XsRows[load_as<uint16_t>(step + 2 + 8 * b + 2 * r) & 511];
    });
    const Bytes packed = load_each(blocks, [](int b) { return 2 + 8 * b; });
    const Bytes sevens = shift_right<1>(packed) & splat(0x7f);  // in the odd bytes
    return with_signs<2>(rows, add_parity(shift_right<8>(sevens)));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    unpack_nibble_scales(load_half(step), step + 66, s);
  }
};

template <>
struct Format<TensorType::kIQ2_S> : CodebookBlocks {
  static constexpr int kStepBytes = 82, kGroup = 16;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Codes rows = look_up_rows(blocks, [](const Byte* step, int b, int r) {
      return kIq2SRows[step[2 + 4 * b + r] | ((step[66 + b] >> (2 * r)) & 3) << 8];
    });
    return with_signs<1>(rows, load_words(blocks, [](int b) { return 34 + 4 * b; }));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    unpack_nibble_scales(load_half(step), step + 74, s);
  }
};

template <>
struct Format<TensorType::kIQ3_XXS> : CodebookBlocks {
  static constexpr int kStepBytes = 98;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Codes rows = look_up_short_rows(
        blocks, [](const Byte* step, int b, int r) { return kIq3XxsRows[step[2 + 8 * b + r]]; });
    const Bytes packed = load_words(blocks, [](int b) { return 66 + 4 * b; });
    return with_signs<1>(rows, unpack_sevens(packed));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(step + 66));
    s.scales[0] = half_step_scales(0.5f * load_half(step), _mm256_srli_epi32(words, 28));
  }
};

template <>
struct Format<TensorType::kIQ3_S> : CodebookBlocks {
  static constexpr int kStepBytes = 110;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Codes rows = look_up_short_rows(blocks, [](const Byte* step, int b, int r) {
      return kIq3SRows[step[2 + 8 * b + r] | ((step[66 + b] >> r) & 1) << 8];
    });
    return with_signs<1>(rows, load_words(blocks, [](int b) { return 74 + 4 * b; }));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<int32_t>(step + 106)),
                                            _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    const __m256i odd = _mm256_slli_epi32(codes & _mm256_set1_epi32(15), 1) | _mm256_set1_epi32(1);
    s.scales[0] = scaled(load_half(step), odd);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
