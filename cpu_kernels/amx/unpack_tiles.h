// Unpacks weights into tiles. Codes of sixteen rows are brought side by side, a row a lane, before
// they are widened: that moves an eighth to a quarter of the bytes that tiles have.
#pragma once

#include "cpu_kernels/amx/weight_tiles.h"
#include "cpu_kernels/bodies/matmul_many.h"

namespace hearth::HEARTH_ISA {
namespace {

static_assert(kTileRows == 16 && kTileColumns == kQuantBlock && kUnpackColumns == kStepColumns);

constexpr int kPrefetchRows = 32;  // further on: what is unpacked after the rows at hand
constexpr int kPairValues = 2 * kTileRows;

// Pairs of bfloat16, rounded to nearest even.
HEARTH_INLINE Bytes bfloat16_pairs(RowFloats first, RowFloats second) {
  const Bytes order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                       23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const Bytes apart = reinterpret_cast<Bytes>(_mm512_cvtne2ps_pbh(second, first));
  return _mm512_permutexvar_epi16(order, apart);
}

// Four columns: byte c of each word is a row's code of column c.
HEARTH_INLINE void scale_codes(Bytes codes, RowFloats scale, RowFloats bias, uint16_t* pairs) {
  const Bytes byte = splat_word(0xff);
  auto weights = [&](Bytes words) { return fused_add(to_floats(words), scale, bias); };
  const RowFloats column0 = weights(codes & byte);
  const RowFloats column1 = weights(shift_right<8>(codes) & byte);
  const RowFloats column2 = weights(shift_right<16>(codes) & byte);
  const RowFloats column3 = weights(shift_right<24>(codes));
  store_bytes(pairs, bfloat16_pairs(column0, column2));
  store_bytes(pairs + kPairValues, bfloat16_pairs(column1, column3));
}

// Up to eight blocks of a step, of any format.
template <typename F>
HEARTH_INLINE void convert_step(const Byte* const* steps, int blocks, uint16_t* tiles) {
  WeightTile unpacked;  // its scales are used, for the blocks of one step
  for (int quad = 0; quad < kTileRows / 4; ++quad) unpack_scales<F>(steps, 0, quad, unpacked);
  for (int b = 0; b < blocks; ++b, tiles += kTileValues) {
    alignas(64) Byte codes[kBlockWords][kTileRows][4];
    unpack_block<F>(steps, b, codes);
    for (int half = 0; half < 2; ++half) {
      const RowFloats scale = load_floats(unpacked.scales[F::kGroup == 16 ? half : 0][slot_of(b)]) *
                              splat_float(F::kFactor);
      RowFloats bias = splat_float(0.0f);
      if constexpr (F::kHasBias) {
        bias = load_floats(unpacked.biases[F::kBiasGroup == 16 ? half : 0][slot_of(b)]);
      }
      bias = fused_add(scale, splat_float(-F::kOffset), bias);
      for (int i = 4 * half; i < 4 * half + 4; ++i) {
        scale_codes(load_bytes(codes[i]), scale, bias, tiles + 2 * i * kPairValues);
      }
    }
  }
}

// MXFP4 needs no floats: a weight is one of eight magnitudes with a sign, times a power of two,
// which moves the exponent. The table's exponents are raised so far that every scale lowers them,
// by subtraction that stops at zero and so leaves zeros alone.
// Scales outside 2^-125 .. 2^125 count as the nearest of those: below, weights are no normal
// bfloat16, which tiles take for zero; above, products overflow.
constexpr int kRaised = 125;
constexpr int kLeastExponent = 2;
constexpr int kBlockBytes = 17;  // an exponent, then codes

// By the low five bits of a code and what lies above it, hence every value twice.
struct RaisedValues {
  alignas(64) uint16_t of[32] = {};

  constexpr RaisedValues() {
    constexpr float kMagnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    for (int i = 0; i < 32; ++i) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, kMagnitudes[i % 8]) >> 16;
      const uint32_t sign = i % 16 < 8 ? 0 : 0x8000;
      of[i] = static_cast<uint16_t>(bits == 0 ? 0 : sign | (bits + (kRaised << 7)));
    }
  }
};
constexpr RaisedValues kRaisedValues;

// What the scales 2^(e - 127) of sixteen rows take from the raised exponents, for both of a pair.
HEARTH_INLINE Bytes lowered_by(__m128i exponents) {
  const Bytes highest = splat_word(127 + kRaised);
  Bytes e = _mm512_cvtepu8_epi32(exponents);
  e = _mm512_min_epi32(_mm512_max_epi32(e, splat_word(kLeastExponent)), highest);
  const Bytes lowered = shift_left<7>(subtract_words(highest, e));
  return lowered | shift_left<16>(lowered);
}

// Nibbles of sixteen rows, four bytes each: the low ones belong to the first half of the columns.
HEARTH_INLINE void look_up_pairs(Bytes packed, Bytes lowered, uint16_t* first, uint16_t* last) {
  const Bytes table = load_bytes(kRaisedValues.of);
  auto store = [&](Bytes indices, uint16_t* pairs) {
    store_bytes(pairs, _mm512_subs_epu16(_mm512_permutexvar_epi16(indices, table), lowered));
  };
  store(packed, first);
  store(_mm512_srli_epi16(packed, 8), first + kPairValues);
  store(_mm512_srli_epi16(packed, 4), last);
  store(_mm512_srli_epi16(packed, 12), last + kPairValues);
}

HEARTH_INLINE void convert_mxfp4_step(const Byte* const* steps, int blocks, uint16_t* tiles) {
  alignas(16) Byte exponents[kStepBlocks][kTileRows];
  for (int r = 0; r < kTileRows; ++r) {
    for (int b = 0; b < kStepBlocks; ++b) exponents[b][r] = steps[r][b * kBlockBytes];
  }
  for (int b = 0; b < blocks; ++b, tiles += kTileValues) {
    auto codes = [&](int q) {
      return load_pieces([&](int i) { return steps[4 * i + q] + b * kBlockBytes + 1; });
    };
    alignas(64) Byte packed[4][kTileRows][4];
    transpose_words(codes(0), codes(1), codes(2), codes(3), packed);
    const Bytes lowered = lowered_by(load_piece(exponents[b]));
    for (int i = 0; i < 4; ++i) {
      uint16_t* pairs = tiles + 2 * i * kPairValues;
      look_up_pairs(load_bytes(packed[i]), lowered, pairs, pairs + kTileValues / 2);
    }
  }
}

}  // namespace

template <TensorType type>
void unpack_tiles(const Matrix& w, int64_t row, int64_t row_end, int64_t first_step, int blocks,
                  uint16_t* tiles) {
  using F = Format<type>;
  const StepReader<F> reader(w);
  for (int begin = 0; begin < blocks; begin += kStepBlocks, tiles += kStepBlocks * kTileValues) {
    Byte padded[kTileRows][F::kStepBytes];
    const Byte* steps[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t from = row + r < row_end ? row + r : row_end - 1;
      steps[r] = reader.at(from, first_step + begin / kStepBlocks, padded[r]);
      reader.prefetch(steps[r], kPrefetchRows * reader.row_bytes);
    }
    const int count = blocks - begin < kStepBlocks ? blocks - begin : kStepBlocks;
    if constexpr (type == TensorType::kMXFP4) {
      convert_mxfp4_step(steps, count, tiles);
    } else {
      convert_step<F>(steps, count, tiles);
    }
  }
}

}  // namespace hearth::HEARTH_ISA
