// Matmul over interleaved rows: a vector holds a word of each of sixteen rows, a lane a row. Codes
// are multiplied where they lie, sums need no shuffles, and the weights are one stream of bytes.
// Sums are formed as matmul_blocks.h says, so that results are those of the stored rows, to the
// bit.
#include "base/check.h"
#include "cpu_kernels/bodies/matmul_few.h"
#include "cpu_kernels/bodies/matmul_many.h"

namespace hearth::HEARTH_ISA {

#ifdef __AVX512F__

namespace {

constexpr int64_t kStreamAhead = 102 * kLineBytes;  // from what is used to what is asked for
constexpr int64_t kManyTokens = 32;                 // for which turning rows back pays
constexpr int64_t kStripRows = 128;  // weights that stay in the second-level cache for more tokens

// A step of sixteen rows: word i of each, a line. Lines further ahead are asked for one by one.
struct InterleavedStep {
  const Byte* data;
  const Byte* ahead;

  HEARTH_INLINE Bytes word(int i) const { return load_once(data + kLineBytes * i); }
  HEARTH_INLINE void ask(int i, Bytes& beside) const { ask_beside(beside, ahead + kLineBytes * i); }
};

// Four neighbouring bytes of a token, for all rows.
HEARTH_INLINE Bytes repeat_word(const int8_t* bytes) {
  return splat_word(load_as<int32_t>(reinterpret_cast<const Byte*>(bytes)));
}

// What a step is multiplied with, and adds to.
template <int tokens>
struct InterleavedSums {
  TokenRow x[tokens];             // from the step on
  const int32_t* starts[tokens];  // of the dots of each block, where codes have an offset
  RowFloats d, minus_dmin;        // where the format has such
  RowFloats partials[kPartials][tokens];

  // `factor` undoes a power of two in the dots.
  HEARTH_INLINE void add_dots(int block, const Bytes (&dots)[tokens], RowFloats scales,
                              float factor) {
    for (int t = 0; t < tokens; ++t) {
      partials[block][t] = fused_add(to_floats(dots[t]) * splat_float(x[t].scales[block] * factor),
                                     scales, partials[block][t]);
    }
  }
  HEARTH_INLINE void add_minima(int block, RowFloats minima, const float (&sums)[tokens]) {
    for (int t = 0; t < tokens; ++t) {
      partials[block][t] = fused_add(minima, splat_float(sums[t]), partials[block][t]);
    }
  }
};

// Interleaved<type> has:
//   kWords        of a row's step
//   kFactorsWord  the one with d and dmin, or -1
//   kOffset       of the codes that are multiplied, or 0
//   add_step      adds a step
template <TensorType type>
struct Interleaved;

template <>
struct Interleaved<TensorType::kMXFP4> {
  using Stored = Format<TensorType::kMXFP4>;
  static constexpr int kWords = 34, kFactorsWord = -1, kOffset = Stored::kOffset;

  template <int tokens>
  static HEARTH_INLINE void add_step(const InterleavedStep& step, InterleavedSums<tokens>& sums) {
    const Bytes exponents[2] = {step.word(0), step.word(1)};
#pragma GCC unroll 8
    for (int block = 0; block < kStepBlocks; ++block) {
      Bytes dots[tokens];
      for (int t = 0; t < tokens; ++t) dots[t] = splat_word(sums.starts[t][block]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Bytes codes = step.word(2 + 4 * block + i);
        step.ask(4 * block + i, codes);
        multiply(codes, kQuantBlock * block + 4 * i, sums, dots);
      }
      sums.add_dots(block, dots, scale_of(exponents[block / 4], block % 4), Stored::kFactor);
    }
    Bytes last = exponents[1];
    for (int word = kWords - 2; word < kWords; ++word) step.ask(word, last);
  }

 private:
  // Four columns in low nibbles, and four that lie sixteen further in high ones.
  template <int tokens>
  static HEARTH_INLINE void multiply(Bytes codes, int column, const InterleavedSums<tokens>& sums,
                                     Bytes (&dots)[tokens]) {
    const __m128i table = _mm_add_epi8(load_piece(reinterpret_cast<const Byte*>(kMxfp4Values)),
                                       _mm_set1_epi8(static_cast<char>(kOffset)));
    const Bytes low = look_up_nibble(table, codes),
                high = look_up_nibble(table, shift_right<4>(codes));
    for (int t = 0; t < tokens; ++t) {
      const int8_t* x = sums.x[t].codes + column;
      dots[t] = dot_add<255>(dots[t], low, repeat_word(x));
      dots[t] = dot_add<255>(dots[t], high, repeat_word(x + kQuantHalf));
    }
  }

  // 2^(byte - 127), see the stored format.
  static HEARTH_INLINE RowFloats scale_of(Bytes exponents, int byte) {
    const Bytes moved =
        byte == 3 ? _mm512_srli_epi32(exponents, 1) : _mm512_slli_epi32(exponents, 23 - 8 * byte);
    const Bytes bits = moved & splat_word(0x7f800000);
    return reinterpret_cast<RowFloats>(_mm512_max_epu32(bits, splat_word(1 << 22)));
  }
};

template <>
struct Interleaved<TensorType::kQ4_K> {
  static constexpr int kWords = 36, kFactorsWord = 0, kOffset = 0;

  template <int tokens>
  static HEARTH_INLINE void add_step(const InterleavedStep& step, InterleavedSums<tokens>& sums) {
    // See unpack_scales_and_minima.
    const Bytes low = step.word(1), low_minima = step.word(2), last = step.word(3);
    auto top = [](Bytes v) { return shift_right<2>(v) & splat(0x30); };
    const Bytes scales[2] = {low & splat(63), (last & splat(15)) | top(low)};
    const Bytes minima[2] = {low_minima & splat(63),
                             (shift_right<4>(last) & splat(15)) | top(low_minima)};
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; ++pair) {
      Bytes dots[2][tokens];
      multiply(step, pair, sums, dots);
      add_block(2 * pair, dots[0], scales[pair / 2], minima[pair / 2], 1.0f, sums);
      add_block(2 * pair + 1, dots[1], scales[pair / 2], minima[pair / 2], 0x1p-4f, sums);
    }
  }

 private:
  // Two blocks, in low and in high nibbles; the dots of these come out sixteen times too large.
  template <int tokens>
  static HEARTH_INLINE void multiply(const InterleavedStep& step, int pair,
                                     const InterleavedSums<tokens>& sums,
                                     Bytes (&dots)[2][tokens]) {
    for (int t = 0; t < tokens; ++t) dots[0][t] = dots[1][t] = zero();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      Bytes codes = step.word(4 + 8 * pair + i);
      step.ask(9 * pair + i, codes);
      if (i == 7) step.ask(9 * pair + 8, codes);
      const Bytes low = codes & splat(0x0f), high = codes & splat(0xf0);
      for (int t = 0; t < tokens; ++t) {
        const int8_t* x = sums.x[t].codes + 64 * pair + 4 * i;
        dots[0][t] = dot_add<255>(dots[0][t], low, repeat_word(x));
        dots[1][t] = dot_add<255>(dots[1][t], high, repeat_word(x + kQuantBlock));
      }
    }
  }

  // Of four blocks' scales and minima, a byte each.
  template <int tokens>
  static HEARTH_INLINE void add_block(int block, const Bytes (&dots)[tokens], Bytes scales,
                                      Bytes minima, float factor, InterleavedSums<tokens>& sums) {
    auto byte_of = [&](Bytes v) {
      return to_floats(_mm512_srli_epi32(v, 8 * (block % 4)) & splat_word(255));
    };
    float halves[tokens];
    for (int t = 0; t < tokens; ++t) {
      halves[t] = sums.x[t].sums[2 * block] + sums.x[t].sums[2 * block + 1];
    }
    sums.add_dots(block, dots, sums.d * byte_of(scales), factor);
    sums.add_minima(block, sums.minus_dmin * byte_of(minima), halves);
  }
};

template <>
struct Interleaved<TensorType::kQ2_K> {
  static constexpr int kWords = 21, kFactorsWord = 20, kOffset = 0;

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
          const int lines = 2 * (8 * half + 4 * group + field);
          multiply(step, lines, codes, field, 128 * half + 16 * group, sums, dots[group][field]);
        }
      }
      const Bytes packed[2] = {step.word(2 * half), step.word(2 * half + 1)};
      add_block<0>(dots[0][0], dots[1][0], packed[0], 4 * half, sums);
      add_block<1>(dots[0][1], dots[1][1], packed[0], 4 * half + 1, sums);
      add_block<2>(dots[0][2], dots[1][2], packed[1], 4 * half + 2, sums);
      add_block<3>(dots[0][3], dots[1][3], packed[1], 4 * half + 3, sums);
    }
  }

 private:
  // The dots of bits 2 field and 2 field + 1 of sixteen codes, 4^field times too large.
  template <int tokens>
  static HEARTH_INLINE void multiply(const InterleavedStep& step, int line, const Bytes (&codes)[4],
                                     int field, int column, const InterleavedSums<tokens>& sums,
                                     Bytes (&dots)[tokens]) {
    for (int t = 0; t < tokens; ++t) dots[t] = zero();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      Bytes masked = codes[i] & splat(3 << (2 * field));
      if (i % 2 == 0 && line + i / 2 < kWords) step.ask(line + i / 2, masked);
      for (int t = 0; t < tokens; ++t) {
        const int8_t* x = sums.x[t].codes + column + kQuantBlock * field + 4 * i;
        dots[t] = dot_add<255>(dots[t], masked, repeat_word(x));
      }
    }
  }

  // A block of two groups. Their dots become the halves of a word each. `packed` has a scale and,
  // in the upper nibble, a minimum of each group of two blocks.
  template <int field, int tokens>
  static HEARTH_INLINE void add_block(const Bytes (&first)[tokens], const Bytes (&second)[tokens],
                                      Bytes packed, int block, InterleavedSums<tokens>& sums) {
    constexpr int kByte = field % 2 * 2;
    constexpr int kPair = static_cast<int>(0x80018000 + kByte * 0x00010001);
    const __m128i places =
        _mm_setr_epi32(kPair, kPair + 0x00040004, kPair + 0x00080008, kPair + 0x000c000c);
    const Bytes scales = look_up(packed & splat(15), repeat_piece(places));
    Bytes dots[tokens];
    float halves[2][tokens];
    for (int t = 0; t < tokens; ++t) {
      dots[t] = _mm512_dpwssd_epi32(zero(), join<field>(first[t], second[t]), scales);
      for (int half = 0; half < 2; ++half) halves[half][t] = sums.x[t].sums[2 * block + half];
    }
    sums.add_dots(block, dots, sums.d, 1.0f);
    sums.add_minima(block, sums.minus_dmin * nibble<8 * kByte + 4>(packed), halves[0]);
    sums.add_minima(block, sums.minus_dmin * nibble<8 * kByte + 12>(packed), halves[1]);
  }

  // Four bits of each word as a float: a permute reads no more of them.
  template <int first>
  static HEARTH_INLINE RowFloats nibble(Bytes words) {
    const RowFloats numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(shift_right<first>(words), numbers);
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
      if constexpr (F::kOffset != 0) set_starts(rows_[t].codes, k, starts_[t]);
    }
  }

  void run(int64_t row, int64_t row_end) const {
    for (; row < row_end; row += kInterleavedRows) multiply(row);
  }

 private:
  static constexpr int64_t kStepBytes = int64_t{kInterleavedRows} * 4 * F::kWords;

  // Minus offset times the sum of each block's codes.
  static void set_starts(const int8_t* codes, int64_t columns, int32_t* starts) {
    for (; columns > 0; columns -= 4 * 64, codes += 4 * 64, starts += kStepBlocks) {
      __m256i eighths[4];  // sums of eight codes, 128 too large each
      for (int i = 0; i < 4; ++i) {
        const Bytes positive = load_bytes(codes + 64 * i) ^ splat(0x80);
        eighths[i] = _mm512_cvtepi64_epi32(_mm512_sad_epu8(positive, zero()));
      }
      const __m256i blocks = _mm256_hadd_epi32(_mm256_hadd_epi32(eighths[0], eighths[1]),
                                               _mm256_hadd_epi32(eighths[2], eighths[3]));
      const __m256i sums = _mm256_sub_epi32(
          _mm256_permutevar8x32_epi32(blocks, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)),
          _mm256_set1_epi32(128 * kQuantBlock));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(starts),
                          _mm256_mullo_epi32(sums, _mm256_set1_epi32(-F::kOffset)));
    }
  }

  // What is read kStreamAhead later: of this call, or the caller's.
  HEARTH_INLINE const Byte* ahead_of(const Byte* data, const Byte* end) const {
    const Byte* ahead = data + kStreamAhead;
    return ahead < end || p_.next == nullptr ? ahead : p_.next + (ahead - end);
  }

  void multiply(int64_t row) const {
    const int64_t bytes = steps_ * kStepBytes;  // of sixteen rows
    const Byte* data = p_.w.data + row / kInterleavedRows * bytes;
    const Byte* end = p_.w.data + p_.row_end / kInterleavedRows * bytes;
    RowFloats totals[tokens];
    for (int t = 0; t < tokens; ++t) totals[t] = splat_float(0.0f);
    InterleavedSums<tokens> sums;
    for (int64_t s = 0; s < steps_; s += kChunkSteps) {
      for (auto& block : sums.partials) {
        for (int t = 0; t < tokens; ++t) block[t] = splat_float(0.0f);
      }
      const int64_t chunk_end = s + kChunkSteps < steps_ ? s + kChunkSteps : steps_;
      for (int64_t step = s; step < chunk_end; ++step, data += kStepBytes) {
        add_step({data, ahead_of(data, end)}, step, sums);
      }
      for (int t = 0; t < tokens; ++t) totals[t] += sum_partials(sums, t);
    }
    for (int t = 0; t < tokens; ++t) store_floats(y_row(p_, first_ + t) + row, totals[t]);
  }

  HEARTH_INLINE void add_step(const InterleavedStep& step, int64_t s,
                              InterleavedSums<tokens>& sums) const {
    for (int t = 0; t < tokens; ++t) {
      sums.x[t] = {rows_[t].codes + s * kStepColumns, rows_[t].scales + s * kStepBlocks,
                   rows_[t].sums + s * 2 * kStepBlocks};
      if constexpr (F::kOffset != 0) sums.starts[t] = starts_[t] + s * kStepBlocks;
    }
    if constexpr (F::kFactorsWord >= 0) {
      const Bytes factors = step.word(F::kFactorsWord);
      sums.d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(factors));
      sums.minus_dmin = -_mm512_cvtph_ps(_mm512_cvtepi32_epi16(shift_right<16>(factors)));
    }
    F::add_step(step, sums);
  }

  static HEARTH_INLINE RowFloats sum_partials(const InterleavedSums<tokens>& sums, int t) {
    auto pair = [&](int i) { return sums.partials[i][t] + sums.partials[i + 4][t]; };
    return (pair(0) + pair(2)) + (pair(1) + pair(3));
  }

  const MatmulParams& p_;
  const int64_t first_;
  const int64_t steps_;
  TokenRow rows_[tokens];
  int32_t starts_[tokens][F::kOffset != 0 ? kInterleavedColumnsMax / kQuantBlock : 1];
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
void multiply(const MatmulParams& p) {
  if (p.n >= kManyTokens) return ManyTokens<type>(p).run();
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
  if (p.w.type == TensorType::kMXFP4) return multiply<TensorType::kMXFP4>(p);
  if (p.w.type == TensorType::kQ4_K) return multiply<TensorType::kQ4_K>(p);
  HEARTH_CHECK(p.w.type == TensorType::kQ2_K);
  multiply<TensorType::kQ2_K>(p);
}

#else

void matmul_interleaved(const MatmulParams&) {
  HEARTH_CHECK(!"interleaved matrices are read here");
}

#endif

}  // namespace hearth::HEARTH_ISA
