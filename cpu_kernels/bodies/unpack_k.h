// Unpacking of the K formats: blocks of 256, which are a step each.
#pragma once

#include "cpu_kernels/bodies/unpack.h"

namespace hearth::HEARTH_ISA {
namespace {

struct LargeBlocks {
  static constexpr int kBlock = 256;
  static constexpr int kRows = 8;
  static constexpr int kGroup = 32;
  static constexpr float kFactor = 1.0f;
  static constexpr bool kPaired = false;
  static constexpr int kBiasGroup = 32;
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
#ifdef __AVX512F__
// Vector 0 has the even blocks, vector 1 the odd ones.
template <int start>
HEARTH_INLINE Codes unpack_nibble_pairs(const OneRow& blocks) {
  Codes packed;
  split_halves(load_bytes(blocks.row + start), load_bytes(blocks.row + start + 64), packed.lo,
               packed.hi);
  if (blocks.first != 0) packed = {shift_right<4>(packed.lo), shift_right<4>(packed.hi)};
  return {packed.lo & splat(15), packed.hi & splat(15)};
}
#endif
template <int start, typename Blocks>
HEARTH_INLINE Codes unpack_nibble_pairs(const Blocks& blocks) {
  const Bytes counts = word_each(blocks, [](int b) { return 4 * (b % 2); });
  const Bytes lo = load_each(blocks, [](int b) { return start + 32 * (b / 2); });
  const Bytes hi = load_each(blocks, [](int b) { return start + 32 * (b / 2) + 16; });
  return {shift_right(lo, counts) & splat(15), shift_right(hi, counts) & splat(15)};
}

// One more bit of each code, at bit `place`: bit numbers[b] of the 32 bytes that all blocks share
// belongs to block b.
template <int start, int place, typename Blocks>
HEARTH_INLINE Codes add_shared_bits(const Blocks& blocks, Bytes numbers, const Codes& codes) {
  const Bytes lo = move_bit<place>(load_shared(blocks, [](int) { return start; }), numbers);
  const Bytes hi = move_bit<place>(load_shared(blocks, [](int) { return start + 16; }), numbers);
  const Bytes mask = splat(1 << place);
  return {or_masked(codes.lo, lo, mask), or_masked(codes.hi, hi, mask)};
}

// The numbers of the blocks that unpack_nibble_pairs unpacks.
template <typename Blocks>
HEARTH_INLINE Bytes paired_numbers(const Blocks& blocks) {
  return word_each(blocks, [](int b) { return kCanPair ? 2 * (b % 4) + b / 4 : b; });
}
HEARTH_INLINE Bytes paired_numbers(const OneBlock& blocks) { return splat_word(blocks.number); }

#ifdef __AVX512F__
// Scales of two rows, whose words are to alternate: see fold_order in matmul_few.h.
constexpr __mmask64 kFirstBytes = 0x1111111111111111;  // of words

HEARTH_INLINE Bytes join_rows(__m128i row0, __m128i row1) {
  return _mm512_castsi256_si512(_mm256_inserti128_si256(_mm256_castsi128_si256(row0), row1, 1));
}
// The half float at byte `place` of each row's piece.
template <int place>
HEARTH_INLINE RowFloats fold_factors(Bytes rows) {
  constexpr int kFirst = place | (place + 1) << 8;
  const Bytes halves = _mm512_permutexvar_epi8(splat_word(kFirst | (kFirst + 0x1010) << 16), rows);
  return _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
}
#endif

template <>
struct Format<TensorType::kQ2_K> : LargeBlocks {
  // A code is the stored one times its group's four-bit scale.
  static constexpr int kStepBytes = 84, kOffset = 0, kCodeMax = 45, kBiasGroup = 16;
  static constexpr bool kHasBias = true;

  // Tables of four products in words, from words with a group's scale in the low nibble.
  static HEARTH_INLINE Bytes tables(Bytes words) {
    return multiply_words(words & splat_word(15), splat_word(0x03020100));
  }

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    const Codes pairs = unpack_bit_pairs<16>(blocks);
    const Bytes packed = from_words([&](int i) {
      return i % 4 == 0 ? load_as<uint16_t>(blocks.step(i / 4) + 2 * blocks.block(i / 4)) : 0;
    });
    return {look_up(tables(packed), pairs.lo), look_up(tables(shift_right<8>(packed)), pairs.hi)};
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = _mm256_set1_ps(load_half(step + 80));
    const __m256i packed = _mm256_cvtepu8_epi16(load_piece(step));
    split_scales(-load_half(step + 82), _mm256_srli_epi16(packed, 4), s.biases);
  }
  // The tables of two vectors of blocks fit one vector: piece i has those of both halves of its
  // block in the first vector, then in the second.
  static HEARTH_INLINE Codes codes(const OneRow& blocks) {
    const int pair = blocks.first / (2 * kPieces), second = blocks.first / kPieces % 2;
    const Bytes places = from_words(
        [&](int i) { return 2 * (2 * kPieces * pair + i / 4 + kPieces * (i % 4 / 2)) + i % 2; });
    const Bytes pair_tables = tables(look_up(load_piece(blocks.row), places));
    const Bytes counts = word_each(blocks, [](int b) { return 2 * (b % 4); });
    auto half = [&](int number) {
      const Bytes packed =
          load_shared(blocks, [&](int b) { return 16 + 32 * (b / 4) + 16 * number; });
      const Bytes table = splat(8 * second + 4 * number);  // the byte where it begins
      return look_up(pair_tables, or_masked(table, shift_right(packed, counts), splat(3)));
    };
    return {half(0), half(1)};
  }

#ifdef __AVX512F__
  static HEARTH_INLINE void fold_scales(const Byte* const* steps, RowFloats* scales,
                                        RowFloats* biases) {
    const Bytes packed = join_rows(load_piece(steps[0]), load_piece(steps[1]));
    const Bytes factors = join_rows(load_piece(steps[0] + 68), load_piece(steps[1] + 68));
    scales[0] = fold_factors<12>(factors);
    const RowFloats minimum = -fold_factors<14>(factors);
    for (int half = 0; half < 2; ++half) {
      const Bytes places =
          from_words([&](int i) { return 16 * (i % 2) + 2 * (i / 4 + 4 * (i % 4 / 2)) + half; });
      const Bytes groups = _mm512_maskz_permutexvar_epi8(kFirstBytes, places, packed);
      biases[half] = minimum * to_floats(shift_right<4>(groups));
    }
  }
#endif
};

template <>
struct Format<TensorType::kQ3_K> : LargeBlocks {
  static constexpr int kStepBytes = 110, kGroup = 16, kOffset = 4, kCodeMax = 7;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return add_shared_bits<0, 2>(blocks, word_each(blocks, [](int b) { return b; }),
                                 unpack_bit_pairs<32>(blocks));
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

// Q4_K and Q5_K: d, dmin, then six-bit scales and minima of eight groups in twelve bytes. The first
// four of each are bytes of their own, with bits 4 and 5 of the last four on top.
#ifdef __AVX512F__
// The scales and biases of two rows, block by block: those of block 0 of each row first.
HEARTH_INLINE void fold_scales_and_minima(const Byte* const* steps, RowFloats* scales,
                                          RowFloats* biases) {
  const Bytes headers = join_rows(load_piece(steps[0]), load_piece(steps[1]));
  // Word i is for block i / 2 of row i % 2: the byte with the low bits, the one with the top bits.
  auto gather = [&](int first) {
    const Bytes places = from_words([&](int i) {
      const int block = i / 2, header = 16 * (i % 2);
      return header + (block < 4 ? first + block : (8 + block) | (header + first + block - 4) << 8);
    });
    return _mm512_maskz_permutexvar_epi8(0x3333333311111111, places, headers);
  };
  auto join = [&](Bytes low, Bytes gathered) {
    const Bytes masks = from_words([](int i) { return i < 8 ? 63 : 15; });
    return to_floats(or_masked(low & masks, shift_right<10>(gathered), splat_word(0x30)));
  };
  const Bytes nibbles = from_words([](int i) { return i < 8 ? 0 : 4; });
  const Bytes packed = gather(4), minima = gather(8);
  scales[0] = fold_factors<0>(headers) * join(packed, packed);
  biases[0] = -fold_factors<2>(headers) * join(shift_right(minima, nibbles), minima);
}
#endif
HEARTH_INLINE void unpack_scales_and_minima(const Byte* step, Scales& s) {
  const __m128i header = load_piece(step);
  const __m256i bytes = _mm256_broadcastsi128_si256(header);
  const __m256i masks = _mm256_setr_epi32(63, 63, 63, 63, 15, 15, 15, 15);
  // The byte with the low bits, then the one with the top bits, of each group.
  auto gather = [&](int first) {
    const int last = 12 | (first << 8) | static_cast<int>(0x80800000);
    const int alone = first | static_cast<int>(0x80808000);
    return _mm256_shuffle_epi8(
        bytes, _mm256_setr_epi32(alone, alone + 1, alone + 2, alone + 3, last, last + 0x101,
                                 last + 0x202, last + 0x303));
  };
  auto join = [&](__m256i low, __m256i gathered) {
    return (low & masks) | (_mm256_srli_epi32(gathered, 10) & _mm256_set1_epi32(0x30));
  };
  const __m256i scales = gather(4), minima = gather(8);
  const __m256i nibbles = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
  const __m128 factors = _mm_cvtph_ps(header);
  s.scales[0] = scaled(factors[0], join(scales, scales));
  s.biases[0] = scaled(-factors[1], join(_mm256_srlv_epi32(minima, nibbles), minima));
}

template <>
struct Format<TensorType::kQ4_K> : LargeBlocks {
  static constexpr int kStepBytes = 144, kOffset = 0, kCodeMax = 15;
  static constexpr bool kPaired = kCanPair;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_nibble_pairs<16>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    unpack_scales_and_minima(step, s);
  }
#ifdef __AVX512F__
  static HEARTH_INLINE void fold_scales(const Byte* const* steps, RowFloats* scales,
                                        RowFloats* biases) {
    fold_scales_and_minima(steps, scales, biases);
  }
#endif
};

template <>
struct Format<TensorType::kQ5_K> : LargeBlocks {
  static constexpr int kStepBytes = 176, kOffset = 0, kCodeMax = 31;
  static constexpr bool kPaired = kCanPair;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return add_shared_bits<16, 4>(blocks, paired_numbers(blocks), unpack_nibble_pairs<48>(blocks));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    unpack_scales_and_minima(step, s);
  }
#ifdef __AVX512F__
  static HEARTH_INLINE void fold_scales(const Byte* const* steps, RowFloats* scales,
                                        RowFloats* biases) {
    fold_scales_and_minima(steps, scales, biases);
  }
#endif
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
