// Cached rows as float vectors, whatever they are stored as.
#pragma once

#include <immintrin.h>

#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

template <KvType type>
struct KvRow;

template <>
struct KvRow<KvType::kF32> {
  using Value = float;
  static FloatVec load(const float* row) { return FloatVec::load_unaligned(row); }
  static float at(const float* row, int64_t i) { return row[i]; }
};

template <>
struct KvRow<KvType::kBF16> {
  using Value = uint16_t;
  // A bfloat16 is the upper half of a float32.
  static FloatVec load(const uint16_t* row) {
#ifdef __AVX512F__
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
#else
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
#endif
  }
  static float at(const uint16_t* row, int64_t i) {
    return __builtin_bit_cast(float, static_cast<uint32_t>(row[i]) << 16);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
