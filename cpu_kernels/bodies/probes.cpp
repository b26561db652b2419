// Probes of what the machine can do at best: bytes from memory, multiply-adds in registers.
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {

uint64_t read_bytes(const void* data, int64_t bytes) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  __m256i sums[4] = {};
  int64_t i = 0;
  for (; i + 128 <= bytes; i += 128) {
    for (int lane = 0; lane < 4; ++lane) {
      const void* at = p + i + 32 * lane;
      sums[lane] =
          _mm256_xor_si256(sums[lane], _mm256_loadu_si256(static_cast<const __m256i*>(at)));
    }
  }
  const __m256i folded =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  uint64_t words[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), folded);
  uint64_t result = words[0] ^ words[1] ^ words[2] ^ words[3];
  for (; i < bytes; ++i) result ^= p[i];
  return result;
}

// Chains enough that none waits for its own last result.
int64_t multiply_registers(int64_t rounds) {
  constexpr int kChains = 12;
  constexpr int kCodeMax = 31;
  Bytes sums[kChains];
  for (Bytes& sum : sums) sum = zero();
  Bytes u = splat(1), x = splat(3);
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : "+x"(u), "+x"(x));  // neither known nor the same as in the last round
    for (Bytes& sum : sums) sum = dot_add<kCodeMax>(sum, u, x, u, x);
  }
  for (Bytes& sum : sums) asm volatile("" : : "x"(sum));
  return rounds * kChains * 2 * 2 * static_cast<int64_t>(sizeof(Bytes));
}

}  // namespace hearth::HEARTH_ISA
