// Rounds activations to 8 bits as AVX-512 does, and to bfloat16 in the order that tiles want.
#include <immintrin.h>

#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

// 32 columns, each four in the order 0, 2, 1, 3.
void round_block(const float* x, uint16_t* out) {
  constexpr int kOrder = 0 | 2 << 2 | 1 << 4 | 3 << 6;
  const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
  const __m512i first_fours = _mm512_shufflelo_epi16(reinterpret_cast<__m512i>(rounded), kOrder);
  _mm512_storeu_si512(out, _mm512_shufflehi_epi16(first_fours, kOrder));
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
