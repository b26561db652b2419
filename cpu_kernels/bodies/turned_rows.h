// Interleaved rows (Matrix::interleaved) as products with many tokens read them: turned back into
// rows, a step of sixteen at a time, which costs little beside what follows.
#pragma once

#include "cpu_kernels/bodies/matmul_blocks.h"
#include "cpu_kernels/bodies/unpack_k.h"

namespace hearth::HEARTH_ISA {
namespace {

template <TensorType type>
constexpr bool kInterleaves = sizeof(Bytes) == 64 &&
                              (type == TensorType::kMXFP4 || type == TensorType::kQ2_K ||
                               type == TensorType::kQ4_K);

// The format of a step that was turned back.
template <TensorType type>
struct TurnedFormat : Format<type> {};

// The exponents of its blocks, then their codes.
template <>
struct TurnedFormat<TensorType::kMXFP4> : Format<TensorType::kMXFP4> {
  static constexpr int kCodesAt = kStepBlocks, kCodeBytes = 16;

  template <typename Blocks>
  static HEARTH_INLINE Codes codes(const Blocks& blocks) {
    return look_up_nibbles<kCodesAt, kCodeBytes>(kMxfp4Values, kOffset, blocks);
  }
  static HEARTH_INLINE void scales(const Byte* step, Scales& s) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(step));
    s.scales[0] = powers_of_two(_mm256_cvtepu8_epi32(bytes));
  }
};

template <TensorType type>
class TurnedStep {
 public:
  static constexpr int kWords = Format<type>::kStepBytes / 4;
  static constexpr int64_t kStride = (kWords + 3) / 4 * 16;  // the last store may pass the step

  // `data`: kWords words of each row, the rows in turn.
  HEARTH_INLINE void take(const Byte* data) {
    static_assert(kInterleavedRows == 16 && Format<type>::kStepBytes % 4 == 0);
#pragma GCC unroll 16
    for (int word = 0; word < kWords; word += 4) {
      auto load = [&](int i) {
        return word + i < kWords ? load_bytes(data + 64 * (word + i)) : zero();
      };
      store_four_words(load(0), load(1), load(2), load(3), rows_ + 4 * word);
    }
  }

  const Byte* row(int number) const { return rows_ + number * kStride; }

 private:
  // Words 4 i .. 4 i + 3 of sixteen rows to bytes 16 i and on of each.
  static HEARTH_INLINE void store_four_words(Bytes a, Bytes b, Bytes c, Bytes d, Byte* out) {
    const Bytes low_ab = interleave_words_low(a, b), high_ab = interleave_words_high(a, b);
    const Bytes low_cd = interleave_words_low(c, d), high_cd = interleave_words_high(c, d);
    const Bytes rows[4] = {
        interleave_pairs_low(low_ab, low_cd), interleave_pairs_high(low_ab, low_cd),
        interleave_pairs_low(high_ab, high_cd), interleave_pairs_high(high_ab, high_cd)};
    for (int i = 0; i < 4; ++i) {
      store_pieces(rows[i], [&](int piece) { return out + (4 * piece + i) * kStride; });
    }
  }

  alignas(64) Byte rows_[16 * kStride];
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
