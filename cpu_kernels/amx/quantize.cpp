// Rounds activations to 8 bits as AVX-512 does, and to bfloat16 in the order that tiles want.
#include <immintrin.h>

#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

// 32 columns: the even ones, then the odd ones.
void round_block(const float* x, uint16_t* out) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  const __m512 first = _mm512_loadu_ps(x), last = _mm512_loadu_ps(x + 16);
  const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_permutex2var_ps(first, odd, last),
                                               _mm512_permutex2var_ps(first, even, last));
  _mm512_storeu_si512(out, reinterpret_cast<__m512i>(rounded));
}

}  // namespace

void quantize(const float* x, int64_t n, int64_t k, RoundedRows out) {
  avx512::quantize(x, n, k, out);
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column < k; column += kQuantBlock) {
      round_block(x + row * k + column, out.bfloat16s + row * out.bfloat16_stride + column);
    }
  }
}

}  // namespace hearth::HEARTH_ISA
