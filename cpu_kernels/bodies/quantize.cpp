// Rounds activations to 8 bits in blocks of 32. Every instruction set and the reference give the
// same bits.
#include <immintrin.h>

#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kVectors = 4;                // of 8 floats in a block
constexpr float kLeastMagnitude = 1e-36f;  // below this 127 / largest is not finite: counts as zero

float largest_magnitude(const __m256* x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest = _mm256_setzero_ps();
  for (int v = 0; v < kVectors; ++v) largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, x[v]));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  m = _mm_max_ss(m, _mm_movehdup_ps(m));
  return _mm_cvtss_f32(m);
}

// Packs 32-bit codes to bytes, in order.
__m256i pack(const __m256i* codes) {
  const __m256i first = _mm256_packs_epi32(codes[0], codes[1]);
  const __m256i second = _mm256_packs_epi32(codes[2], codes[3]);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
}

int horizontal_sum(__m256i v) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
  return _mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 1);
}

void quantize_block(const float* x, int8_t* codes, float* scale, float* sums) {
  __m256 values[kVectors];
  for (int v = 0; v < kVectors; ++v) values[v] = _mm256_loadu_ps(x + 8 * v);
  float largest = largest_magnitude(values);
  if (largest < kLeastMagnitude) largest = 0;
  const __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
  *scale = largest / 127.0f;
  __m256i rounded[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    rounded[v] = _mm256_cvtps_epi32(_mm256_mul_ps(values[v], inverse));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), pack(rounded));
  for (int half = 0; half < 2; ++half) {
    const int sum = horizontal_sum(_mm256_add_epi32(rounded[2 * half], rounded[2 * half + 1]));
    sums[half] = *scale * static_cast<float>(sum);
  }
}

}  // namespace

void quantize(const float* x, int64_t n, int64_t k, RoundedRows out) {
  for (int64_t b = 0; b < n * k / kQuantBlock; ++b) {
    quantize_block(x + b * kQuantBlock, out.codes + b * kQuantBlock, out.scales + b,
                   out.sums + 2 * b);
  }
}

}  // namespace hearth::HEARTH_ISA
