// Block-format matmul: what its two ways, few tokens (matmul_few.h) and many (matmul_many.h), have
// in common.
//
// Both form each result by the same operations in the same order, so that it does not depend on the
// way. Columns are taken in chunks of 2048; in a chunk, block b of 32 columns adds to partial sum
// b % 8, blocks in order:
//   partial = fma(dot * (activation scale * kFactor), weight scale, partial)  // dot: exact integer
//   partial = fma(bias, activation sum, partial)                  // formats with a bias
// each of the two for the first and then the last half of the block where its groups are of 16. The
// chunk's sum is ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)) of the partial sums; chunks are added in
// order to 0.
#pragma once

#include "cpu_kernels/bodies/matmul.h"
#include "cpu_kernels/bodies/unpack.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kChunkColumns = 2048;
constexpr int kChunkSteps = kChunkColumns / kStepColumns;
constexpr int kChunkBlocks = kChunkColumns / kQuantBlock;

// Whether dots start from -kOffset * (sum of the activation codes), which takes the offset out of
// the codes.
template <typename F>
constexpr bool kHasStart = F::kOffset != 0 && !kDotIsSigned<F::kCodeMax>;

constexpr int kPartials = 8;

HEARTH_INLINE int64_t step_count(int64_t columns) {
  return (columns + kStepColumns - 1) / kStepColumns;
}

// Copies the blocks of a partial step and puts zeros after them.
[[gnu::noinline]] inline void pad_step(const Byte* blocks, int64_t bytes, int64_t step_bytes,
                                       Byte* padded) {
  for (int64_t i = 0; i < step_bytes; ++i) padded[i] = i < bytes ? blocks[i] : Byte{0};
}

// A matrix as rows of steps. Where the last step of a row is partial, it is taken from a padded
// copy: neither may bytes past the row be read, nor do they count.
template <typename F>
struct StepReader {
  const Byte* data;
  int64_t row_bytes;
  int64_t full_steps;

  explicit StepReader(const Matrix& w)
      : data(w.data),
        row_bytes(w.cols / F::kBlock * (F::kStepBytes / (kStepColumns / F::kBlock))),
        full_steps(w.cols / kStepColumns) {}

  HEARTH_INLINE const Byte* row(int64_t number) const { return data + number * row_bytes; }

  HEARTH_INLINE const Byte* at(int64_t number, int64_t step, Byte* padded) const {
    const Byte* bytes = row(number) + step * F::kStepBytes;
    if (F::kBlock == kStepColumns || step < full_steps) return bytes;
    pad_step(bytes, row_bytes - full_steps * F::kStepBytes, F::kStepBytes, padded);
    return padded;
  }

  // Asks for a step `ahead` bytes further on. Rows are short, so the hardware's own streams start
  // over too often; into the second-level cache, since by the time of use the first would have lost
  // it.
  HEARTH_INLINE void prefetch(const Byte* step, int64_t ahead) const {
    for (int i = 0; i < F::kStepBytes; i += 64)
      _mm_prefetch(reinterpret_cast<const char*>(step + ahead + i), _MM_HINT_T1);
  }
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
