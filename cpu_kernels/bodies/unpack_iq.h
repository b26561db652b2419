// Unpacking of the IQ formats with blocks of 256: rows of magnitudes from codebooks, signs apart.
#pragma once

#include "cpu_kernels/bodies/unpack_k.h"

namespace hearth::HEARTH_ISA {
namespace {

template <>
struct Format<TensorType::kIQ4_XS> : LargeBlocks {
  static constexpr int kStepBytes = 136, kOffset = 128, kCodeMax = 255;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    unpack_nibbles(p + 8, 16, w);
    look_up_all(code_table(kIq4Values, kOffset), w);
    const __m256i group = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<int32_t>(p + 4)),
                                          _mm256_slli_epi32(group, 2));
    const __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<uint16_t>(p + 2)),
                                           _mm256_slli_epi32(group, 1));
    const __m256i code = (low & _mm256_set1_epi32(15)) |
                         _mm256_slli_epi32(high & _mm256_set1_epi32(3), 4);
    w.scales[0] = scaled(load_half(p), _mm256_sub_epi32(code, _mm256_set1_epi32(32)));
  }
};

// Codes of the formats with codebooks: magnitudes up to 62 with their signs, and 64 added.
struct CodebookBlocks : LargeBlocks {
  static constexpr int kOffset = 64, kCodeMax = 126;
};

// row(block, r): the magnitudes of weights 8 r .. 8 r + 7 of a block; signs(block): their 32 sign bits.
template <typename Row, typename Signs>
HEARTH_INLINE void unpack_rows(Row row, Signs signs, Weights& w) {
  for (int v = 0; v < kVectors; ++v) {
    auto half = [&](int half_index) {
      const Bytes magnitudes = from_rows([&](int i) {
        return static_cast<long long>(row(v * kPieces + i / 2, 2 * half_index + i % 2));
      });
      uint64_t bits = 0;
      for (int i = 0; i < kPieces; ++i) {
        const uint64_t all = signs(v * kPieces + i);
        bits |= ((all >> (16 * half_index)) & 0xffff) << (16 * i);
      }
      return add_bytes(negate_where(bits, magnitudes), splat(CodebookBlocks::kOffset));
    };
    w.lo[v] = half(0);
    w.hi[v] = half(1);
  }
}

// Four times seven bits to 32 signs.
HEARTH_INLINE uint32_t signs_of_sevens(uint32_t packed) {
  return kIqSigns[packed & 127] | kIqSigns[(packed >> 7) & 127] << 8 |
         kIqSigns[(packed >> 14) & 127] << 16 |
         static_cast<uint32_t>(kIqSigns[(packed >> 21) & 127]) << 24;
}

HEARTH_INLINE uint64_t join_rows(uint32_t first, uint32_t second) {
  return first | static_cast<uint64_t>(second) << 32;
}

// d (0.5 + code) / 4 for integer codes.
HEARTH_INLINE __m256 half_step_scales(float d, __m256i codes) {
  const __m256 shifted = _mm256_add_ps(_mm256_cvtepi32_ps(codes), _mm256_set1_ps(0.5f));
  return _mm256_mul_ps(_mm256_set1_ps(d * 0.25f), shifted);
}

// IQ2_XS and IQ2_S: a byte for each block, the low nibble for its first half.
HEARTH_INLINE void unpack_nibble_scales(float d, const Byte* p, Weights& w) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load_as<int64_t>(p)));
  w.scales[0] = half_step_scales(d, bytes & _mm256_set1_epi32(15));
  w.scales[1] = half_step_scales(d, _mm256_srli_epi32(bytes, 4));
}

template <>
struct Format<TensorType::kIQ2_XXS> : CodebookBlocks {
  static constexpr int kStepBytes = 66;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    auto packed = [&](int block) { return load_as<uint32_t>(p + 2 + 8 * block + 4); };
    unpack_rows([&](int block, int r) { return kIq2XxsRows[p[2 + 8 * block + r]]; },
                [&](int block) { return signs_of_sevens(packed(block)); }, w);
    const __m256i words = _mm256_setr_epi32(packed(0), packed(1), packed(2), packed(3), packed(4),
                                            packed(5), packed(6), packed(7));
    w.scales[0] = half_step_scales(load_half(p), _mm256_srli_epi32(words, 28));
  }
};

template <>
struct Format<TensorType::kIQ2_XS> : CodebookBlocks {
  static constexpr int kStepBytes = 74, kGroup = 16;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    auto packed = [&](int block, int r) { return load_as<uint16_t>(p + 2 + 8 * block + 2 * r); };
    auto signs = [&](int block) {
      return kIqSigns[packed(block, 0) >> 9] | kIqSigns[packed(block, 1) >> 9] << 8 |
             kIqSigns[packed(block, 2) >> 9] << 16 |
             static_cast<uint32_t>(kIqSigns[packed(block, 3) >> 9]) << 24;
    };
    unpack_rows([&](int block, int r) { return kIq2XsRows[packed(block, r) & 511]; }, signs, w);
    unpack_nibble_scales(load_half(p), p + 66, w);
  }
};

template <>
struct Format<TensorType::kIQ2_S> : CodebookBlocks {
  static constexpr int kStepBytes = 82, kGroup = 16;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    auto row = [&](int block, int r) {
      return kIq2SRows[p[2 + 4 * block + r] | ((p[66 + block] >> (2 * r)) & 3) << 8];
    };
    unpack_rows(row, [&](int block) { return load_as<uint32_t>(p + 34 + 4 * block); }, w);
    unpack_nibble_scales(load_half(p), p + 74, w);
  }
};

template <>
struct Format<TensorType::kIQ3_XXS> : CodebookBlocks {
  static constexpr int kStepBytes = 98;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    auto row = [&](int block, int r) {
      const Byte* indices = p + 2 + 8 * block + 2 * r;
      return join_rows(kIq3XxsRows[indices[0]], kIq3XxsRows[indices[1]]);
    };
    auto signs = [&](int block) { return signs_of_sevens(load_as<uint32_t>(p + 66 + 4 * block)); };
    unpack_rows(row, signs, w);
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 66));
    w.scales[0] = half_step_scales(2.0f * load_half(p), _mm256_srli_epi32(words, 28));
  }
};

template <>
struct Format<TensorType::kIQ3_S> : CodebookBlocks {
  static constexpr int kStepBytes = 110;

  static HEARTH_INLINE void unpack(const Byte* p, Weights& w) {
    auto row = [&](int block, int r) {
      const Byte* indices = p + 2 + 8 * block + 2 * r;
      const int high = p[66 + block] >> (2 * r);
      return join_rows(kIq3SRows[indices[0] | (high & 1) << 8], kIq3SRows[indices[1] | (high & 2) << 7]);
    };
    unpack_rows(row, [&](int block) { return load_as<uint32_t>(p + 74 + 4 * block); }, w);
    const __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32(load_as<int32_t>(p + 106)),
                                            _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    const __m256i odd = _mm256_slli_epi32(codes & _mm256_set1_epi32(15), 1) | _mm256_set1_epi32(1);
    w.scales[0] = scaled(load_half(p), odd);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
