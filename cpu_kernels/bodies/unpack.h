// Unpacking of the weight formats, the ones with blocks of 32 here, the others in unpack_k.h and
// unpack_iq.h. A format turns a step of 256 weights of a row into unsigned 8-bit codes and float
// scales:
//   weight = kFactor * scale * (code - kOffset) + bias,  the bias only where kHasBias
// with one scale (and bias) for each kGroup weights, 16 or 32.
#pragma once

#include "base/codebooks.h"
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {
namespace {

// Format<type> has:
//   kBlock        weights a stored block, 32 or 256
//   kStepBytes    bytes of a step
//   kRows         rows of a matrix taken at once, for few tokens
//   kGroup, kFactor, kOffset, kHasBias as above; kCodeMax, the largest code
//   kBiasGroup    weights that share a bias, 16 or 32
//   kPaired       whether codes(OneRow) has the even blocks in vector 0 and the odd ones in 1
//   codes(blocks) the codes of kPieces blocks (OneRow or OneBlock)
//   scales(step)  the scales of a step
// and may have
//   group_codes(steps, out) codes(OneRow) of all vectors of a group of rows
//   fold_scales(steps, ..)  scales of a group of rows, in the order that matmul_few.h folds to
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

// Sixteen bytes for each block of `bytes` bytes, which begin with a header.
template <int header, int bytes>
HEARTH_INLINE Bytes load_bodies(const OneBlock& blocks) {
  return load_each(blocks, [](int b) { return header + bytes * b; });
}

#ifdef __AVX512F__
// For blocks of more than 16 bytes a step is three loads: bytes 0 .. 63, 64 .. 127 and the last 32.
// Places in the first two, or in the last two, make the indices of a permute.
struct Places {
  alignas(64) Byte at[64] = {};
};
template <int header, int bytes>
constexpr Places body_places(int first) {
  Places places;
  for (int i = 0; i < 64; ++i) {
    const int place = bytes * (first + i / 16) + header + i % 16 - 16 * first;
    const int skipped = first == 0 || place < 64 ? 0 : 2 * 64 - (bytes * kStepBlocks - 32);
    places.at[i] = static_cast<Byte>(place + skipped);
  }
  return places;
}
template <int header, int bytes>
HEARTH_INLINE Bytes load_bodies(const OneRow& blocks) {
  if constexpr (bytes == 16) return load_bytes(blocks.row + header + 16 * blocks.first);
  static_assert(bytes * kStepBlocks - 32 <= 128);
  static constexpr Places kFirst = body_places<header, bytes>(0);
  static constexpr Places kSecond = body_places<header, bytes>(kPieces);
  const Bytes middle = load_once(blocks.row + 64);
  if (blocks.first == 0) {
    return _mm512_permutex2var_epi8(load_once(blocks.row), load_bytes(kFirst.at), middle);
  }
  const __m256i last =
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(blocks.row + bytes * kStepBlocks - 32));
  return _mm512_permutex2var_epi8(middle, load_bytes(kSecond.at), _mm512_castsi256_si512(last));
}
#else
template <int header, int bytes>
HEARTH_INLINE Bytes load_bodies(const OneRow& blocks) {
  return load_each(blocks, [](int b) { return header + bytes * b; });
}
#endif

// Blocks of `bytes` bytes: a header, then 16 bytes whose low nibbles are the first half.
template <int header, int bytes, typename Blocks>
HEARTH_INLINE Codes unpack_nibbles(const Blocks& blocks) {
  const Bytes packed = load_bodies<header, bytes>(blocks);
  return {packed & splat(15), shift_right<4>(packed) & splat(15)};
}

// The same with a word of fifth bits, bit i for code i, before the nibbles.
template <int header, int bytes, typename Blocks>
HEARTH_INLINE Codes unpack_five_bits(const Blocks& blocks) {
  const Bytes packed = load_each(blocks, [](int b) { return header + bytes * b; });
  const Codes low = {packed & splat(15), shift_right<4>(packed) & splat(15)};
  const Bytes bits = load_words(blocks, [](int b) { return header - 4 + bytes * b; });
  return {low.lo | keep_where(spread_bytes<0, 1>(bits), splat(16)),
          low.hi | keep_where(spread_bytes<2, 3>(bits), splat(16))};
}

// The same where nibbles stand for signed values.
template <int header, int bytes, typename Blocks>
HEARTH_INLINE Codes look_up_nibbles(const int8_t* values, int offset, const Blocks& blocks) {
  const __m128i table = _mm_add_epi8(load_piece(reinterpret_cast<const Byte*>(values)),
                                     _mm_set1_epi8(static_cast<char>(offset)));
  const Bytes packed = load_bodies<header, bytes>(blocks);
  return {look_up_nibble(table, packed), look_up_nibble(table, shift_right<4>(packed))};
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

// The scales that blocks of 17 or 18 bytes begin with.
#ifdef __AVX512F__
// Item b is the first `size` bytes of block b, with zeros up to `width`. All are in the first 128
// bytes of the step.
template <int bytes, int size, int width>
HEARTH_INLINE __m256i gather_heads(const Byte* step) {
  static_assert(bytes * (kStepBlocks - 1) + size <= 128);
  static constexpr Places kPlaces = [] {
    Places places;
    for (int b = 0; b < kStepBlocks; ++b) {
      for (int i = 0; i < size; ++i) places.at[width * b + i] = static_cast<Byte>(bytes * b + i);
    }
    return places;
  }();
  constexpr __mmask64 kItems = size == width ? 0xffff : 0x11111111;
  return _mm512_castsi512_si256(_mm512_maskz_permutex2var_epi8(
      kItems, load_once(step), load_bytes(kPlaces.at), load_once(step + 64)));
}
template <int bytes>
HEARTH_INLINE __m256i load_byte_heads(const Byte* step) {
  return gather_heads<bytes, 1, 4>(step);
}
template <int bytes>
HEARTH_INLINE __m256 load_half_heads(const Byte* step) {
  return _mm256_cvtph_ps(_mm256_castsi256_si128(gather_heads<bytes, 2, 2>(step)));
}
#else
template <int bytes>
HEARTH_INLINE __m256i load_byte_heads(const Byte* step) {
  return load_eight_bytes(step, bytes);
}
template <int bytes>
HEARTH_INLINE __m256 load_half_heads(const Byte* step) {
  return load_halves(step, bytes);
}
#endif

// 2^(e - 127): e as exponent bits, the subnormal 0.5 * 2^-126 for e = 0.
HEARTH_INLINE __m256 powers_of_two(__m256i e) {
  const __m256i exponents = _mm256_slli_epi32(e, 23);
  return _mm256_castsi256_ps(_mm256_max_epu32(exponents, _mm256_set1_epi32(1 << 22)));
}

struct SmallBlocks {
  static constexpr int kBlock = 32;
  static constexpr int kRows = 8;
  static constexpr int kGroup = 32;
  static constexpr float kFactor = 1.0f;
  static constexpr bool kPaired = false;
  static constexpr int kBiasGroup = 32;
  static constexpr bool kHasBias = false;
};

template <>
struct Format<TensorType::kMXFP4> : SmallBlocks {
  static constexpr int kStepBytes = 136, kOffset = 12, kCodeMax = 24;
  static constexpr float kFactor = 0.5f;  // since the values are doubled

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return look_up_nibbles<1, 17>(kMxfp4Values, kOffset, blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = powers_of_two(load_byte_heads<17>(step));
  }
};

template <>
struct Format<TensorType::kQ8_0> : SmallBlocks {
  static constexpr int kStepBytes = 272, kOffset = 128, kCodeMax = 255, kRows = 4;

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
    s.scales[0] = load_half_heads<18>(step);
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
    return look_up_nibbles<2, 18>(kIq4Values, kOffset, blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    s.scales[0] = load_half_heads<18>(step);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
