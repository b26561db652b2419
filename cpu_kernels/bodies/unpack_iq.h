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
    return look_up(kIq4Values, kOffset, unpack_nibbles<8, 16>(blocks));
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

// row(step, block, r): the magnitudes of weights 8 r .. 8 r + 7 of a block; signs(step, block):
// their 32 sign bits.
template <typename Blocks, typename Row, typename Signs>
HEARTH_INLINE Codes unpack_rows(const Blocks& blocks, Row row, Signs signs) {
  auto half = [&](int index) {
    const Bytes magnitudes = from_rows([&](int i) {
      const int piece = i / 2;
      return static_cast<long long>(
          row(blocks.step(piece), blocks.block(piece), 2 * index + i % 2));
    });
    const uint64_t negative = bits_each(blocks, [&](const Byte* step, int b) {
      return static_cast<uint16_t>(signs(step, b) >> (16 * index));
    });
    return add_bytes(negate_where(negative, magnitudes), splat(CodebookBlocks::kOffset));
  };
  return {half(0), half(1)};
}

// Four rows' signs of eight bits.
HEARTH_INLINE uint32_t join_signs(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return a | b << 8 | c << 16 | d << 24;
}

// Four times seven bits to signs.
HEARTH_INLINE uint32_t signs_of_sevens(uint32_t packed) {
  return join_signs(kIqSigns[packed & 127], kIqSigns[(packed >> 7) & 127],
                    kIqSigns[(packed >> 14) & 127], kIqSigns[(packed >> 21) & 127]);
}

HEARTH_INLINE uint64_t join_rows(uint32_t first, uint32_t second) {
  return first | static_cast<uint64_t>(second) << 32;
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
    auto row = [](const Byte* step, int b, int r) { return kIq2XxsRows[step[2 + 8 * b + r]]; };
    auto signs = [](const Byte* step, int b) {
      return signs_of_sevens(load_as<uint32_t>(step + 2 + 8 * b + 4));
    };
    return unpack_rows(blocks, row, signs);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    auto word = [&](int b) { return load_as<int32_t>(step + 2 + 8 * b + 4); };
    const __m256i words =
        _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
    s.scales[0] = half_step_scales(0.25f * load_half(step), _mm256_srli_epi32(words, 28));
  }
};

template <>
struct Format<TensorType::kIQ2_XS> : CodebookBlocks {
  static constexpr int kStepBytes = 74, kGroup = 16;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    auto word = [](const Byte* step, int b, int r) {
      return load_as<uint16_t>(step + 2 + 8 * b + 2 * r);
    };
    auto row = [&](const Byte* step, int b, int r) { return kIq2XsRows[word(step, b, r) & 511]; };
    auto signs = [&](const Byte* step, int b) {
      auto of_row = [&](int r) { return kIqSigns[word(step, b, r) >> 9]; };
      return join_signs(of_row(0), of_row(1), of_row(2), of_row(3));
    };
    return unpack_rows(blocks, row, signs);
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
    auto row = [](const Byte* step, int b, int r) {
      return kIq2SRows[step[2 + 4 * b + r] | ((step[66 + b] >> (2 * r)) & 3) << 8];
    };
    auto signs = [](const Byte* step, int b) { return load_as<uint32_t>(step + 34 + 4 * b); };
    return unpack_rows(blocks, row, signs);
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
    auto row = [](const Byte* step, int b, int r) {
      const Byte* indices = step + 2 + 8 * b + 2 * r;
      return join_rows(kIq3XxsRows[indices[0]], kIq3XxsRows[indices[1]]);
    };
    auto signs = [](const Byte* step, int b) {
      return signs_of_sevens(load_as<uint32_t>(step + 66 + 4 * b));
    };
    return unpack_rows(blocks, row, signs);
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
    auto row = [](const Byte* step, int b, int r) {
      const Byte* indices = step + 2 + 8 * b + 2 * r;
      const int high = step[66 + b] >> (2 * r);
      return join_rows(kIq3SRows[indices[0] | (high & 1) << 8],
                       kIq3SRows[indices[1] | (high & 2) << 7]);
    };
    auto signs = [](const Byte* step, int b) { return load_as<uint32_t>(step + 74 + 4 * b); };
    return unpack_rows(blocks, row, signs);
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
