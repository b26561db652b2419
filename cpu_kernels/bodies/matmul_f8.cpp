// Matmul with eight-bit floats in scaled blocks of 128, on unrounded activations. Each result sums
// vectors of consecutive columns block by block, whatever tile it is computed in.
#include "cpu_kernels/bodies/matmul.h"
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kLanes = sizeof(RowFloats) / sizeof(float);
constexpr int kBlock = 128;
constexpr int kBlockBytes = 1 + kBlock;  // the scale's exponent first
constexpr int kRowTile = 2;
constexpr int kTokenTile = 2;
constexpr int64_t kPanelTokens = 32;  // whose activations stay in the cache while rows stream by

// Sign, four bits of exponent and three of fraction, moved to where a float32 has them: the value
// times 2^-120, the difference of the exponents' biases, subnormals included.
HEARTH_INLINE RowFloats load_codes(const Byte* p) {
#ifdef __AVX512F__
  const Bytes top = _mm512_slli_epi32(_mm512_cvtepu8_epi32(load_piece(p)), 24);
  const Bytes moved = _mm512_srai_epi32(top, 4) & splat_word(static_cast<int>(0x87f00000));
  return _mm512_castsi512_ps(moved) * splat_float(0x1p120f);
#else
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  const Bytes top = _mm256_slli_epi32(_mm256_cvtepu8_epi32(codes), 24);
  const Bytes moved = _mm256_srai_epi32(top, 4) & splat_word(static_cast<int>(0x87f00000));
  return _mm256_castsi256_ps(moved) * splat_float(0x1p120f);
#endif
}

// 2^(exponent - 127), from 2^-127 (subnormal) on.
HEARTH_INLINE float power_of_two(Byte exponent) {
  const uint32_t bits = exponent == 0 ? 1u << 22 : static_cast<uint32_t>(exponent) << 23;
  return __builtin_bit_cast(float, bits);
}

template <int rows, int tokens>
void multiply_tile(const MatmulParams& p, int64_t row, int64_t token) {
  const int64_t k = p.w.cols, row_bytes = k / kBlock * kBlockBytes;
  const Byte* w = p.w.data + row * row_bytes;
  const float* x[tokens];
  RowFloats sums[rows][tokens];
  for (int t = 0; t < tokens; ++t) {
    x[t] = p.x + x_row(p, token + t) * k;
    for (int r = 0; r < rows; ++r) sums[r][t] = splat_float(0.0f);
  }
  for (int64_t block = 0; block < k / kBlock; ++block, w += kBlockBytes) {
    RowFloats block_sums[rows][tokens];
    for (int r = 0; r < rows; ++r) {
      // The rows that come next.
      _mm_prefetch(reinterpret_cast<const char*>(w + (rows + r) * row_bytes), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(w + (rows + r) * row_bytes + 64), _MM_HINT_T1);
      for (int t = 0; t < tokens; ++t) block_sums[r][t] = splat_float(0.0f);
    }
    for (int i = 0; i < kBlock; i += kLanes) {
      for (int r = 0; r < rows; ++r) {
        const RowFloats codes = load_codes(w + r * row_bytes + 1 + i);
        for (int t = 0; t < tokens; ++t) {
          const RowFloats values = load_floats(x[t] + block * kBlock + i);
          block_sums[r][t] = fused_add(codes, values, block_sums[r][t]);
        }
      }
    }
    for (int r = 0; r < rows; ++r) {
      const RowFloats scale = splat_float(power_of_two(w[r * row_bytes]));
      for (int t = 0; t < tokens; ++t) {
        sums[r][t] = fused_add(block_sums[r][t], scale, sums[r][t]);
      }
    }
  }
  for (int t = 0; t < tokens; ++t) {
    float* y = y_row(p, token + t) + row;
    for (int r = 0; r < rows; ++r) y[r] = sum_lanes(sums[r][t]);
  }
}

template <int rows>
void multiply_rows(const MatmulParams& p, int64_t row, int64_t token, int64_t token_end) {
  for (; token + kTokenTile <= token_end; token += kTokenTile)
    multiply_tile<rows, kTokenTile>(p, row, token);
  if (token < token_end) multiply_tile<rows, 1>(p, row, token);
}

}  // namespace

void matmul_f8(const MatmulParams& p) {
  for (int64_t token = 0; token < p.n; token += kPanelTokens) {
    const int64_t token_end = p.n < token + kPanelTokens ? p.n : token + kPanelTokens;
    int64_t row = p.row_begin;
    for (; row + kRowTile <= p.row_end; row += kRowTile)
      multiply_rows<kRowTile>(p, row, token, token_end);
    if (row < p.row_end) multiply_rows<1>(p, row, token, token_end);
  }
}

}  // namespace hearth::HEARTH_ISA
