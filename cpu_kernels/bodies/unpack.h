// Unpacking of the weight formats, the ones with blocks of 32 here, the others in unpack_k.h and
// unpack_iq.h. A format turns a step of 256 weights of a row into unsigned 8-bit codes and float
// scales:
//   weight = scale * (code - kOffset) + bias,  the bias only where kHasBias
// with one scale (and bias) for each kGroup weights, 16 or 32.
#pragma once

#include "base/codebooks.h"
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {
namespace {

// Format<type> has:
//   kBlock        weights a stored block, 32 or 256
//   kStepBytes    bytes of a step
//   kGroup, kOffset, kHasBias as above; kCodeMax, the largest code
//   codes(blocks) the codes of kPieces blocks (OneRow or OneBlock)
//   scales(step)  the scales of a step
template <TensorType type>
struct Format;

// Codes of kPieces blocks: the first and the last 16 of each, a piece a block.
struct Codes {
  Bytes lo;
  Bytes hi;
};

// Of the pairs, [0] belongs to the first and [1] to the last 16 weights of each block; groups of 32
// use [0] alone.
struct Scales {
  __m256 scales[2];
  __m256 biases[2];
};

// The blocks that are unpacked together, one a piece: neighbours in one row, or the same block of
// several rows.
struct OneRow {
  const Byte* row;  // the step
  int first;        // block of piece 0, a multiple of kPieces

  HEARTH_INLINE const Byte* step(int) const { return row; }
  HEARTH_INLINE int block(int piece) const { return first + piece; }
};
struct OneBlock {
  const Byte* const* rows;  // the step of piece i is rows[4 i]
  int number;

  HEARTH_INLINE const Byte* step(int piece) const { return rows[4 * piece]; }
  HEARTH_INLINE int block(int) const { return number; }
};

// Sixteen bytes for each block, at offset(block) of its step.
template <typename Blocks, typename F>
HEARTH_INLINE Bytes load_each(const Blocks& blocks, F offset) {
  return load_pieces([&](int i) { return blocks.step(i) + offset(blocks.block(i)); });
}

// The same where neighbours in a row have the same bytes.
template <typename F>
HEARTH_INLINE Bytes load_shared(const OneRow& blocks, F offset) {
  return repeat_piece(load_piece(blocks.row + offset(blocks.first)));
}
template <typename F>
HEARTH_INLINE Bytes load_shared(const OneBlock& blocks, F offset) {
  return load_each(blocks, offset);
}

// A word for each block, repeated.
template <typename F>
HEARTH_INLINE Bytes word_each(const OneRow& blocks, F word) {
  return per_piece([&](int i) { return word(blocks.block(i)); });
}
template <typename F>
HEARTH_INLINE Bytes word_each(const OneBlock& blocks, F word) {
  return splat_word(word(blocks.number));
}

// A word of each block, in the first place of its piece: at offset(block) of its step.
template <typename Blocks, typename F>
HEARTH_INLINE Bytes load_words(const Blocks& blocks, F offset) {
  return from_words([&](int i) {
    return i % 4 == 0 ? load_as<int32_t>(blocks.step(i / 4) + offset(blocks.block(i / 4))) : 0;
  });
}

// Blocks of `bytes` bytes: a header, then 16 bytes whose low nibbles are the first half.
template <int header, int bytes, typename Blocks>
HEARTH_INLINE Codes unpack_nibbles(const Blocks& blocks) {
  const Bytes packed = load_each(blocks, [](int b) { return header + bytes * b; });
  return {packed & splat(15), shift_right<4>(packed) & splat(15)};
}

// The same with a word of fifth bits, bit i for code i, before the nibbles.
template <int header, int bytes, typename Blocks>
HEARTH_INLINE Codes unpack_five_bits(const Blocks& blocks) {
  const Codes low = unpack_nibbles<header, bytes>(blocks);
  const Bytes bits = load_words(blocks, [](int b) { return header - 4 + bytes * b; });
  return {low.lo | keep_where(spread_bytes<0, 1>(bits), splat(16)),
          low.hi | keep_where(spread_bytes<2, 3>(bits), splat(16))};
}

// Signed values of nibbles, as codes.
HEARTH_INLINE Codes look_up(const int8_t* values, int offset, const Codes& nibbles) {
  const __m128i table = _mm_add_epi8(load_piece(reinterpret_cast<const Byte*>(values)),
                                     _mm_set1_epi8(static_cast<char>(offset)));
  return {look_up(table, nibbles.lo), look_up(table, nibbles.hi)};
}

// Eight bytes or half floats, `stride` bytes apart.
HEARTH_INLINE __m256i load_eight_bytes(const Byte* p, int stride) {
  uint64_t bytes = 0;
  for (int i = 0; i < 8; ++i) bytes |= static_cast<uint64_t>(p[i * stride]) << (8 * i);
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
}
HEARTH_INLINE __m256 load_halves(const Byte* p, int stride) {
  auto half = [&](int i) { return static_cast<short>(load_as<uint16_t>(p + i * stride)); };
  return _mm256_cvtph_ps(
      _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7)));
}

struct SmallBlocks {
  static constexpr int kBlock = 32;
  static constexpr int kGroup = 32;
  static constexpr bool kHasBias = false;
};

template <>
struct Format<TensorType::kMXFP4> : SmallBlocks {
  static constexpr int kStepBytes = 136, kOffset = 12, kCodeMax = 24;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return look_up(kMxfp4Values, kOffset, unpack_nibbles<1, 17>(blocks));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = power_of_two(load_eight_bytes(step, 17));
  }

  // 2^(e - 128): exponent bits e - 1, or for e < 2 the subnormal with fraction (e + 1) / 4, which
  // as an integer is the smaller one everywhere else.
  static HEARTH_INLINE __m256 power_of_two(__m256i e) {
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    const __m256i subnormal = _mm256_slli_epi32(_mm256_add_epi32(e, one), 21);
    return _mm256_castsi256_ps(_mm256_max_epi32(normal, subnormal));
  }
};

template <>
struct Format<TensorType::kQ8_0> : SmallBlocks {
  static constexpr int kStepBytes = 272, kOffset = 128, kCodeMax = 255;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return {load_each(blocks, [](int b) { return 34 * b + 2; }) ^ splat(0x80),
            load_each(blocks, [](int b) { return 34 * b + 18; }) ^ splat(0x80)};
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_halves(step, 34);
  }
};

template <>
struct Format<TensorType::kQ4_0> : SmallBlocks {
  static constexpr int kStepBytes = 144, kOffset = 8, kCodeMax = 15;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_nibbles<2, 18>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_halves(step, 18);
  }
};

template <>
struct Format<TensorType::kQ4_1> : SmallBlocks {
  static constexpr int kStepBytes = 160, kOffset = 0, kCodeMax = 15;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_nibbles<4, 20>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_halves(step, 20);
    s.biases[0] = load_halves(step + 2, 20);
  }
};

template <>
struct Format<TensorType::kQ5_0> : SmallBlocks {
  static constexpr int kStepBytes = 176, kOffset = 16, kCodeMax = 31;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_five_bits<6, 22>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_halves(step, 22);
  }
};

template <>
struct Format<TensorType::kQ5_1> : SmallBlocks {
  static constexpr int kStepBytes = 192, kOffset = 0, kCodeMax = 31;
  static constexpr bool kHasBias = true;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return unpack_five_bits<8, 24>(blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_halves(step, 24);
    s.biases[0] = load_halves(step + 2, 24);
  }
};

template <>
struct Format<TensorType::kIQ4_NL> : SmallBlocks {
  static constexpr int kStepBytes = 144, kOffset = 128, kCodeMax = 255;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return look_up(kIq4Values, kOffset, unpack_nibbles<2, 18>(blocks));
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_halves(step, 18);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
