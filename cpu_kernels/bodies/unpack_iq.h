// Unpacking of the IQ formats with blocks of 256: values from tables, or rows of magnitudes with
// their signs apart.
#pragma once

#include "cpu_kernels/bodies/packed_rows.h"
#include "cpu_kernels/bodies/unpack_k.h"
#include "cpu_kernels/bodies/unpack_rows.h"

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
  static constexpr int kOffset = kPackedOffset, kCodeMax = 126;
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
#ifdef __AVX512F__
  static HEARTH_INLINE void group_codes(const Byte* const* steps, Codes* out) {
    const Bytes row0 = load_bytes(steps[0] + 2), row1 = load_bytes(steps[1] + 2);
    const Bytes swapped = _mm512_shuffle_epi32(row1, _MM_PERM_CDAB);
    const Bytes indices = _mm512_mask_blend_epi32(0xaaaa, row0, swapped);
    const RowFields fields = look_up_rows<256>(kPackedIq2Xxs, indices, 0, 0);
    codes_of_eights<RowPlaces{0, 8, 1}, RowPlaces{4, 8, 1}>(kPackedIq2Xxs, fields,
                                                            look_up_signs<32, 4>(row0), out);
    codes_of_eights<RowPlaces{4, 8, 1}, RowPlaces{0, 8, 1}>(
        kPackedIq2Xxs, fields, look_up_signs<0, 0>(swapped), out + kVectors);
  }
#endif
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
#ifdef __AVX512F__
    const __m256i nibbles = _mm512_cvtepi64_epi32(_mm512_srli_epi64(load_bytes(step + 2), 60));
#else
    const __m256i nibbles = _mm256_srli_epi32(load_eight_bytes(step + 2 + 7, 8), 4);
#endif
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
#ifdef __AVX512F__
  static HEARTH_INLINE void group_codes(const Byte* const* steps, Codes* out) {
    const Bytes row0 = load_bytes(steps[0] + 2), row1 = load_bytes(steps[1] + 2);
    constexpr __mmask64 kOddBytes = 0xaaaaaaaaaaaaaaaa;
    const Bytes indices = _mm512_mask_mov_epi8(row0, kOddBytes, _mm512_slli_epi16(row1, 8));
    // Bit 8 of an index is bit 0 of the odd byte.
    const Bytes eighths =
        _mm512_mask_mov_epi8(_mm512_srli_epi16(row0, 1), kOddBytes, _mm512_slli_epi16(row1, 7));
    const RowFields fields =
        look_up_rows<512>(kPackedIq2Xs, indices, _mm512_movepi8_mask(eighths), 0);
    codes_of_eights<RowPlaces{0, 8, 2}, RowPlaces{1, 8, 2}>(
        kPackedIq2Xs, fields, look_up_128(kIqSigns, _mm512_srli_epi16(row0, 1)), out);
    codes_of_eights<RowPlaces{1, 8, 2}, RowPlaces{0, 8, 2}>(
        kPackedIq2Xs, fields, look_up_128(kIqSigns, _mm512_srli_epi16(row1, 9)), out + kVectors);
  }
#endif
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
#ifdef __AVX512F__
  static HEARTH_INLINE void group_codes(const Byte* const* steps, Codes* out) {
    const Bytes row0 = load_bytes(steps[0] + 2);  // indices, then signs
    const Bytes row1 = swap_halves(load_bytes(steps[1] + 2));
    constexpr __mmask8 kLastHalf = 0xf0;
    const Bytes indices = _mm512_mask_mov_epi64(row0, kLastHalf, row1);
    // Index i of a row has bits 2 i and 2 i + 1 of a qword: moved to the top of a byte.
    const Bytes top_bits =
        _mm512_mask_set1_epi64(_mm512_set1_epi64(load_as<int64_t>(steps[0] + 66)), kLastHalf,
                               load_as<int64_t>(steps[1] + 66));
    auto bit = [&](int number) {
      const Bytes shifts = from_pairs([&](int i) {
        return 0x0e0c0a0806040200 + kEveryByte * ((16 * (i % 4) + number + 64 - 7) % 64);
      });
      return _mm512_movepi8_mask(_mm512_multishift_epi64_epi8(shifts, top_bits));
    };
    const RowFields fields = look_up_rows<1024>(kPackedIq2S, indices, bit(0), bit(1));
    codes_of_eights<RowPlaces{0, 4, 1}, RowPlaces{32, 4, 1}>(kPackedIq2S, fields, row0, out);
    codes_of_eights<RowPlaces{32, 4, 1}, RowPlaces{0, 4, 1}>(kPackedIq2S, fields, row1,
                                                             out + kVectors);
  }
#endif
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
#ifdef __AVX512F__
  static HEARTH_INLINE void group_codes(const Byte* const* steps, Codes* out) {
    for (int r = 0; r < 2; ++r) {
      const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(steps[r] + 66));
      const RowFields fields = look_up_rows<256>(kPackedIq3Xxs, load_bytes(steps[r] + 2), 0, 0);
      const Bytes signs = look_up_signs<0, 0>(_mm512_cvtepu32_epi64(words));
      codes_of_fours<8>(kPackedIq3Xxs, fields, signs, out + r * kVectors);
    }
  }
#endif
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
#ifdef __AVX512F__
  static HEARTH_INLINE void group_codes(const Byte* const* steps, Codes* out) {
    for (int r = 0; r < 2; ++r) {
      const __m256i signs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(steps[r] + 74));
      const RowFields fields = look_up_rows<512>(kPackedIq3S, load_bytes(steps[r] + 2),
                                                 load_as<uint64_t>(steps[r] + 66), 0);
      codes_of_fours<4>(kPackedIq3S, fields, _mm512_castsi256_si512(signs), out + r * kVectors);
    }
  }
#endif
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<int32_t>(step + 106)),
                                            _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    const __m256i odd = _mm256_slli_epi32(codes & _mm256_set1_epi32(15), 1) | _mm256_set1_epi32(1);
    s.scales[0] = scaled(load_half(step), odd);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
