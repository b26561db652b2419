// Matmul over interleaved rows: a vector holds a word of each of sixteen rows, a lane a row. Codes
// are multiplied where they lie, sums need no shuffles, and the weights are one stream of bytes.
//
// A step of 256 columns of sixteen rows adds, in float32,
//   d * (sum over groups of activation scale * dot * scale) - dmin * (sum of minimum * activations)
// to each result, steps in order. Dots are exact integers. So is the sum over minima, in fixed
// point: see GroupSums.
#include "base/check.h"
#include "cpu_kernels/bodies/matmul_few.h"

namespace hearth::HEARTH_ISA {

#ifdef __AVX512F__

namespace {

constexpr int64_t kStepsMax = kInterleavedColumnsMax / kStepColumns;
constexpr int64_t kStripRows = 128;  // weights that stay in the second-level cache for more tokens
constexpr int kDigits = 3;

// A row's activation sums of the groups that share a minimum, in fixed point with a unit for each
// step: three signed bytes each, the highest first, so that the minima of four groups take three
// dot products. Right to 2^-23 of the step's largest, as float32 would be.
struct GroupSums {
  int8_t digits[kDigits][kStepsMax][16];
  float units[kStepsMax];

  // `sums` of sixteen columns each; `group` of so many, or of twice as many.
  void fill(const float* sums, int64_t steps, int group) {
    constexpr float kLargest = 8e6f;  // below 127 * 2^16
    constexpr float kLeast = 1e-31f;  // below this kLargest / largest may not be finite
    for (int64_t s = 0; s < steps; ++s, sums += kStepColumns / kQuantHalf) {
      RowFloats values = load_floats(sums);
      if (group == kQuantBlock) {
        __m256 halves[2];
        split_sums(sums, halves);
        values = _mm512_zextps256_ps512(_mm256_add_ps(halves[0], halves[1]));
      }
      const float largest = _mm512_reduce_max_ps(_mm512_abs_ps(values));
      const float inverse = largest > kLeast ? kLargest / largest : 0.0f;
      units[s] = largest / kLargest;
      Bytes rest = _mm512_cvtps_epi32(values * splat_float(inverse));
      for (int digit = kDigits; digit-- > 0;) {
        const __m128i low = _mm512_cvtepi32_epi8(rest);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(digits[digit][s]), low);
        rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, _mm512_cvtepi8_epi32(low)), 8);
      }
    }
  }
};

// A step of sixteen rows: word i of each. What is read is asked for `ahead` as well, line by line
// as work goes on: in bursts, requests would wait for each other.
struct InterleavedStep {
  const Byte* data;
  const Byte* ahead;

  HEARTH_INLINE Bytes word(int i) const {
    _mm_prefetch(reinterpret_cast<const char*>(ahead + 64 * i), _MM_HINT_T1);
    return load_once(data + 64 * i);
  }
};

// Four neighbouring bytes of a token, for all rows.
HEARTH_INLINE Bytes repeat_word(const int8_t* bytes) {
  return splat_word(load_as<int32_t>(reinterpret_cast<const Byte*>(bytes)));
}

// A step of some tokens, and what it adds to.
template <int tokens>
struct InterleavedSums {
  const int8_t* codes[tokens];
  const float* scales[tokens];
  const int8_t* digits[tokens][kDigits];
  RowFloats dots[tokens];
  Bytes minima[tokens][kDigits];

  // Of groups 4 quad .. 4 quad + 3, a byte each.
  HEARTH_INLINE void add_minima(Bytes bytes, int quad) {
    for (int t = 0; t < tokens; ++t) {
      for (int digit = 0; digit < kDigits; ++digit) {
        minima[t][digit] =
            dot_add<63>(minima[t][digit], bytes, repeat_word(digits[t][digit] + 4 * quad));
      }
    }
  }
};

// Interleaved<type> has:
//   kWords       of a row's step; kFactorsWord, the one with d and dmin
//   kGroup       columns that share a minimum
//   kBytesAhead  from what is multiplied to what is asked for
//   add_step     adds a step but for d and dmin
template <TensorType type>
struct Interleaved;

template <>
struct Interleaved<TensorType::kQ4_K> {
  static constexpr int kWords = 36, kFactorsWord = 0, kGroup = 32, kBytesAhead = 1024;

  template <int tokens>
  static HEARTH_INLINE void add_step(const InterleavedStep& step, InterleavedSums<tokens>& sums) {
    // See unpack_scales_and_minima.
    const Bytes low = step.word(1), low_minima = step.word(2), last = step.word(3);
    auto top = [](Bytes v) { return shift_right<2>(v) & splat(0x30); };
    const Bytes scales[2] = {low & splat(63), (last & splat(15)) | top(low)};
    sums.add_minima(low_minima & splat(63), 0);
    sums.add_minima((shift_right<4>(last) & splat(15)) | top(low_minima), 1);
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; ++pair) add_pair(step, pair, scales[pair / 2], sums);
  }

 private:
  // Two groups: low nibbles, and high nibbles, which are left sixteen times too large.
  template <int tokens>
  static HEARTH_INLINE void add_pair(const InterleavedStep& step, int pair, Bytes scales,
                                     InterleavedSums<tokens>& sums) {
    Bytes first[tokens], second[tokens];
    for (int t = 0; t < tokens; ++t) first[t] = second[t] = zero();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const Bytes codes = step.word(4 + 8 * pair + i);
      const Bytes low = codes & splat(0x0f), high = codes & splat(0xf0);
      for (int t = 0; t < tokens; ++t) {
        const int8_t* x = sums.codes[t] + 64 * pair + 4 * i;
        first[t] = dot_add<255>(first[t], low, repeat_word(x));
        second[t] = dot_add<255>(second[t], high, repeat_word(x + kQuantBlock));
      }
    }
    const Bytes shifted = pair % 2 == 0 ? scales : shift_right<16>(scales);
    const RowFloats first_scale = to_floats(shifted & splat_word(255));
    const RowFloats second_scale = to_floats(shift_right<8>(shifted) & splat_word(255));
    for (int t = 0; t < tokens; ++t) {
      const float* x = sums.scales[t] + 2 * pair;
      sums.dots[t] = fused_add(to_floats(first[t]) * splat_float(x[0]), first_scale, sums.dots[t]);
      sums.dots[t] =
          fused_add(to_floats(second[t]) * splat_float(x[1] * 0.0625f), second_scale, sums.dots[t]);
    }
  }
};

template <>
struct Interleaved<TensorType::kQ2_K> {
  static constexpr int kWords = 21, kFactorsWord = 20, kGroup = 16, kBytesAhead = 2688;

  // Words 4 + 8 half .. have the codes of blocks 4 half .. 4 half + 3, two bits of each byte a
  // block, the first four words those of the first group of each.
  template <int tokens>
  static HEARTH_INLINE void add_step(const InterleavedStep& step, InterleavedSums<tokens>& sums) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      Bytes dots[2][4][tokens];
#pragma GCC unroll 2
      for (int group = 0; group < 2; ++group) {
        Bytes codes[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) codes[i] = step.word(4 + 8 * half + 4 * group + i);
#pragma GCC unroll 4
        for (int field = 0; field < 4; ++field) {
          multiply(codes, field, 128 * half + 16 * group, sums, dots[group][field]);
        }
      }
      Bytes scales[2];
      for (int i = 0; i < 2; ++i) {
        const Bytes packed = step.word(2 * half + i);
        scales[i] = packed & splat(15);
        sums.add_minima(shift_right<4>(packed) & splat(15), 2 * half + i);
      }
      add_block<0>(dots[0][0], dots[1][0], scales[0], 4 * half, sums);
      add_block<1>(dots[0][1], dots[1][1], scales[0], 4 * half + 1, sums);
      add_block<2>(dots[0][2], dots[1][2], scales[1], 4 * half + 2, sums);
      add_block<3>(dots[0][3], dots[1][3], scales[1], 4 * half + 3, sums);
    }
  }

 private:
  // The dots of bits 2 field and 2 field + 1 of sixteen codes, 4^field times too large.
  template <int tokens>
  static HEARTH_INLINE void multiply(const Bytes (&codes)[4], int field, int column,
                                     const InterleavedSums<tokens>& sums, Bytes (&dots)[tokens]) {
    for (int t = 0; t < tokens; ++t) dots[t] = zero();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Bytes masked = codes[i] & splat(3 << (2 * field));
      for (int t = 0; t < tokens; ++t) {
        const int8_t* x = sums.codes[t] + column + kQuantBlock * field + 4 * i;
        dots[t] = dot_add<255>(dots[t], masked, repeat_word(x));
      }
    }
  }

  // A block of two groups. Their dots become the halves of a word each.
  template <int field, int tokens>
  static HEARTH_INLINE void add_block(const Bytes (&first)[tokens], const Bytes (&second)[tokens],
                                      Bytes scales, int block, InterleavedSums<tokens>& sums) {
    // The bytes of this block's two scales, as the halves of a word.
    constexpr int kPair =
        field % 2 == 0 ? static_cast<int>(0x80018000) : static_cast<int>(0x80038002);
    const __m128i places =
        _mm_setr_epi32(kPair, kPair + 0x00040004, kPair + 0x00080008, kPair + 0x000c000c);
    const Bytes scale_pairs = look_up(scales, repeat_piece(places));
    for (int t = 0; t < tokens; ++t) {
      const Bytes dot = _mm512_dpwssd_epi32(zero(), join<field>(first[t], second[t]), scale_pairs);
      sums.dots[t] = fused_add(to_floats(dot), splat_float(sums.scales[t][block]), sums.dots[t]);
    }
  }

  // Bits 2 field and on of two dots, as the halves of a word.
  template <int field>
  static HEARTH_INLINE Bytes join(Bytes low, Bytes high) {
    constexpr uint64_t kFrom = 2 * field;
    constexpr uint64_t kShifts = kFrom << 16 | (kFrom + 8) << 24;
    const Bytes shifts =
        _mm512_set1_epi64(static_cast<int64_t>(kShifts | (kShifts + 0x2020'0000) << 32));
    return _mm512_mask_multishift_epi64_epi8(shift_right<2 * field>(low), 0xcccccccccccccccc,
                                             shifts, high);
  }
};

// Tokens first .. first + tokens - 1 of a call.
template <TensorType type, int tokens>
class InterleavedMatmul {
  using F = Interleaved<type>;

 public:
  InterleavedMatmul(const MatmulParams& p, int64_t first)
      : p_(p), first_(first), steps_(p.w.cols / kStepColumns) {
    for (int t = 0; t < tokens; ++t) {
      const int64_t row = x_row(p, first + t), k = p.w.cols;
      rows_[t] = {p.xq.codes + row * k, p.xq.scales + row * k / kQuantBlock,
                  p.xq.sums + row * k / kQuantHalf};
      sums_[t].fill(rows_[t].sums, steps_, F::kGroup);
    }
  }

  void run(int64_t row, int64_t row_end) const {
    for (; row < row_end; row += kInterleavedRows) multiply(row);
  }

 private:
  static constexpr int64_t kStepBytes = int64_t{kInterleavedRows} * 4 * F::kWords;

  // What is read kBytesAhead later: of this call, or the caller's.
  HEARTH_INLINE const Byte* ahead_of(const Byte* data, const Byte* end) const {
    const Byte* ahead = data + F::kBytesAhead;
    return ahead < end || p_.next == nullptr ? ahead : p_.next + (ahead - end);
  }

  void multiply(int64_t row) const {
    const int64_t bytes = steps_ * kStepBytes;  // of sixteen rows
    const Byte* data = p_.w.data + row / kInterleavedRows * bytes;
    const Byte* end = p_.w.data + p_.row_end / kInterleavedRows * bytes;
    RowFloats totals[tokens];
    for (int t = 0; t < tokens; ++t) totals[t] = splat_float(0.0f);
    for (int64_t s = 0; s < steps_; ++s, data += kStepBytes) {
      add_step({data, ahead_of(data, end)}, s, totals);
    }
    for (int t = 0; t < tokens; ++t) store_floats(y_row(p_, first_ + t) + row, totals[t]);
  }

  HEARTH_INLINE void add_step(const InterleavedStep& step, int64_t s,
                              RowFloats (&totals)[tokens]) const {
    InterleavedSums<tokens> sums;
    for (int t = 0; t < tokens; ++t) {
      sums.codes[t] = rows_[t].codes + s * kStepColumns;
      sums.scales[t] = rows_[t].scales + s * kStepBlocks;
      sums.dots[t] = splat_float(0.0f);
      for (int digit = 0; digit < kDigits; ++digit) {
        sums.digits[t][digit] = sums_[t].digits[digit][s];
        sums.minima[t][digit] = zero();
      }
    }
    F::add_step(step, sums);
    const Bytes factors = step.word(F::kFactorsWord);
    const RowFloats d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(factors));
    const RowFloats dmin = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(shift_right<16>(factors)));
    for (int t = 0; t < tokens; ++t) {
      const Bytes(&digits)[kDigits] = sums.minima[t];
      RowFloats minima = fused_add(to_floats(digits[1]), splat_float(0x1p8f), to_floats(digits[2]));
      minima = fused_add(to_floats(digits[0]), splat_float(0x1p16f), minima);
      totals[t] = fused_add(d, sums.dots[t], totals[t]);
      totals[t] = fused_add(-dmin, minima * splat_float(sums_[t].units[s]), totals[t]);
    }
  }

  const MatmulParams& p_;
  const int64_t first_;
  const int64_t steps_;
  TokenRow rows_[tokens];
  GroupSums sums_[tokens];
};

template <TensorType type>
void multiply_tokens(const MatmulParams& p, int64_t first, int64_t row, int64_t row_end) {
  static_assert(kFewTokens == 4);
  switch (p.n - first) {
    case 1:
      return InterleavedMatmul<type, 1>(p, first).run(row, row_end);
    case 2:
      return InterleavedMatmul<type, 2>(p, first).run(row, row_end);
    case 3:
      return InterleavedMatmul<type, 3>(p, first).run(row, row_end);
    default:
      return InterleavedMatmul<type, 4>(p, first).run(row, row_end);
  }
}

template <TensorType type>
void multiply_strips(const MatmulParams& p) {
  const int64_t strip_rows = p.n <= kFewTokens ? p.row_end - p.row_begin : kStripRows;
  for (int64_t row = p.row_begin; row < p.row_end; row += strip_rows) {
    const int64_t end = row + strip_rows < p.row_end ? row + strip_rows : p.row_end;
    for (int64_t first = 0; first < p.n; first += kFewTokens) {
      multiply_tokens<type>(p, first, row, end);
    }
  }
}

}  // namespace

void matmul_interleaved(const MatmulParams& p) {
  HEARTH_CHECK(p.row_begin % kInterleavedRows == 0 && p.row_end % kInterleavedRows == 0);
  HEARTH_CHECK(p.w.cols <= kInterleavedColumnsMax);
  if (p.w.type == TensorType::kQ4_K) return multiply_strips<TensorType::kQ4_K>(p);
  HEARTH_CHECK(p.w.type == TensorType::kQ2_K);
  multiply_strips<TensorType::kQ2_K>(p);
}

#else

void matmul_interleaved(const MatmulParams&) {
  HEARTH_CHECK(!"interleaved matrices are read here");
}

#endif

}  // namespace hearth::HEARTH_ISA
