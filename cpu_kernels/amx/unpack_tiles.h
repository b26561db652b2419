// Unpacks weights into tiles, row by row: a block of 32 weights becomes one store of 64 bytes.
#pragma once

#include "cpu_kernels/amx/weight_tiles.h"
#include "cpu_kernels/bodies/turned_rows.h"

namespace hearth::HEARTH_ISA {
namespace {

// Floats of 16 bits, as far as tiles see blocks in them.
struct HalfBlocks {
  static constexpr int kBlock = 32, kStepBytes = 512;
};
template <>
struct Format<TensorType::kF16> : HalfBlocks {};
template <>
struct Format<TensorType::kBF16> : HalfBlocks {};

static_assert(kTileColumns == kQuantBlock && kUnpackColumns == kStepColumns && kPieces == 4);

// Even and odd columns as bfloat16, rounded to nearest even.
HEARTH_INLINE void store_block(RowFloats even, RowFloats odd, uint16_t* out) {
  store_bytes(out, reinterpret_cast<Bytes>(_mm512_cvtne2ps_pbh(odd, even)));
}

HEARTH_INLINE Bytes widen_pairs(const Byte* codes) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
}

// The unsigned codes of four blocks, one block after the other.
HEARTH_INLINE void join_halves(const Codes& codes, Byte (*out)[kQuantBlock]) {
  const Bytes first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const Bytes last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  store_bytes(out[0], _mm512_permutex2var_epi64(codes.lo, first, codes.hi));
  store_bytes(out[2], _mm512_permutex2var_epi64(codes.lo, last, codes.hi));
}

// Where a step's block comes to lie.
template <typename F>
constexpr int place_of(int block) {
  return F::kPaired ? block % 2 * kPieces + block / 2 : block;
}

// weight = scale * code + bias.
struct StepScales {
  float scales[2][kStepBlocks];
  float biases[2][kStepBlocks];
};

template <typename F>
HEARTH_INLINE void unpack_step_scales(const Byte* step, StepScales& out) {
  Scales s;
  F::scales(step, s);
  for (int half = 0; half < 2; ++half) {
    const __m256 scale = s.scales[F::kGroup == 16 ? half : 0] * _mm256_set1_ps(F::kFactor);
    __m256 bias = _mm256_setzero_ps();
    if constexpr (F::kHasBias) bias = s.biases[F::kBiasGroup == 16 ? half : 0];
    _mm256_storeu_ps(out.scales[half], scale);
    _mm256_storeu_ps(out.biases[half], _mm256_fmadd_ps(scale, _mm256_set1_ps(-F::kOffset), bias));
  }
}

// One value for all sixteen pairs of a block, or one for each half of them.
template <bool halves>
HEARTH_INLINE RowFloats spread_halves(const float (*values)[kStepBlocks], int block) {
  const RowFloats first = splat_float(values[0][block]);
  return halves ? _mm512_mask_blend_ps(0xff00, first, splat_float(values[1][block])) : first;
}

template <typename F>
HEARTH_INLINE void convert_codes(const Byte* codes, const StepScales& s, int block, uint16_t* out) {
  const RowFloats scale = spread_halves<F::kGroup == 16>(s.scales, block);
  const RowFloats bias = spread_halves < F::kGroup == 16 || F::kBiasGroup == 16 > (s.biases, block);
  const Bytes pairs = widen_pairs(codes);
  store_block(fused_add(to_floats(pairs & splat_word(0xff)), scale, bias),
              fused_add(to_floats(shift_right<8>(pairs)), scale, bias), out);
}

constexpr int kRowsAtOnce = 2;  // since some formats take their codes so

// `blocks` blocks of kRowsAtOnce rows; row i's begin at tiles + i * kTileColumns.
template <typename F>
HEARTH_INLINE void convert_steps(const Byte* const* steps, int blocks, uint16_t* tiles) {
  Codes vectors[kRowsAtOnce * kVectors];
  if constexpr (requires { F::group_codes(steps, vectors); }) {
    F::group_codes(steps, vectors);
  } else {
#pragma GCC unroll 4
    for (int i = 0; i < kRowsAtOnce * kVectors; ++i) {
      vectors[i] = F::codes(OneRow{steps[i / kVectors], i % kVectors * kPieces});
    }
  }
  for (int r = 0; r < kRowsAtOnce; ++r) {
    alignas(64) Byte codes[kStepBlocks][kQuantBlock];
    for (int v = 0; v < kVectors; ++v) join_halves(vectors[r * kVectors + v], codes + kPieces * v);
    StepScales scales;
    unpack_step_scales<F>(steps[r], scales);
    for (int b = 0; b < blocks; ++b) {
      convert_codes<F>(codes[place_of<F>(b)], scales, b,
                       tiles + b * kTileValues + r * kTileColumns);
    }
  }
}

template <TensorType type>
constexpr bool kIsHalf = type == TensorType::kF16 || type == TensorType::kBF16;

// Formats whose blocks are unpacked one at a time.
template <TensorType type>
constexpr bool kByBlock = type == TensorType::kMXFP4 || type == TensorType::kQ8_0 || kIsHalf<type>;

template <TensorType type>
struct BlockUnpacker;

// 32 values of 16 bits: the even ones, then the odd ones.
HEARTH_INLINE Bytes load_apart(const Byte* values) {
  const Bytes order = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
                                       30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return _mm512_permutexvar_epi16(order, load_bytes(values));
}

template <>
struct BlockUnpacker<TensorType::kBF16> {
  static constexpr int kBytes = 64;
  HEARTH_INLINE void operator()(const Byte* block, uint16_t* out) const {
    store_bytes(out, load_apart(block));
  }
};

template <>
struct BlockUnpacker<TensorType::kF16> {
  static constexpr int kBytes = 64;
  HEARTH_INLINE void operator()(const Byte* block, uint16_t* out) const {
    const Bytes values = load_apart(block);
    store_block(_mm512_cvtph_ps(_mm512_castsi512_si256(values)),
                _mm512_cvtph_ps(_mm512_extracti64x4_epi64(values, 1)), out);
  }
};

// Q8_0 has its codes in order already.
template <>
struct BlockUnpacker<TensorType::kQ8_0> {
  static constexpr int kBytes = 34;

  HEARTH_INLINE void operator()(const Byte* block, uint16_t* out) const {
    const RowFloats scale = splat_float(_cvtsh_ss(load_as<uint16_t>(block)));
    const Bytes pairs = widen_pairs(block + 2);
    const Bytes even = _mm512_srai_epi32(shift_left<24>(pairs), 24);
    const Bytes odd = _mm512_srai_epi32(shift_left<16>(pairs), 24);
    store_block(to_floats(even) * scale, to_floats(odd) * scale, out);
  }
};

// MXFP4 needs no floats: a weight is one of eight magnitudes with a sign, times a power of two,
// which moves the exponent. The table's exponents are raised so far that every scale lowers them,
// by subtraction that stops at zero and so leaves zeros alone.
// Scales outside 2^-125 .. 2^125 count as the nearest of those: below, weights are no normal
// bfloat16, which tiles take for zero; above, products overflow.
constexpr int kRaised = 125;
constexpr int kLeastExponent = 2;

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

// What the scale 2^(e - 127) takes from the raised exponents, for both of a pair.
struct LoweredBy {
  uint32_t of[256] = {};

  constexpr LoweredBy() {
    constexpr int kHighest = 127 + kRaised;
    for (int e = 0; e < 256; ++e) {
      const int within = e < kLeastExponent ? kLeastExponent : e > kHighest ? kHighest : e;
      of[e] = static_cast<uint32_t>(kHighest - within) * (0x10001u << 7);
    }
  }
};
constexpr LoweredBy kLoweredBy;

// Piece i of the indices is nibble i of the block's eight pairs of bytes: columns 0, 2 .. 14, then
// 16, 18 .. 30, then the odd ones.
template <>
struct BlockUnpacker<TensorType::kMXFP4> {
  static constexpr int kBytes = 17;  // an exponent, then codes
  Bytes table = load_bytes(kRaisedValues.of);
  Bytes shifts = per_piece([](int i) { return 4 * i * 0x10001; });

  HEARTH_INLINE void operator()(const Byte* block, uint16_t* out) const {
    (*this)(block[0], block + 1, out);
  }
  HEARTH_INLINE void operator()(Byte exponent, const Byte* codes, uint16_t* out) const {
    const Bytes indices = _mm512_srlv_epi16(repeat_piece(load_piece(codes)), shifts);
    const Bytes raised = _mm512_permutexvar_epi16(indices, table);
    const Bytes lowered = splat_word(static_cast<int32_t>(kLoweredBy.of[exponent]));
    store_bytes(out, _mm512_subs_epu16(raised, lowered));
  }
};

// Of interleaved rows.
template <TensorType type>
void unpack_turned(const TileRows& rows, int64_t step, int blocks, uint16_t* tiles) {
  using F = TurnedFormat<type>;
  const Byte* data =
      rows.w.data + rows.row * StepReader<F>(rows.w).row_bytes + step * 16 * F::kStepBytes;
  const Byte* ahead = rows.ahead + step * 16 * F::kStepBytes;
  TurnedStep<type> stored;
  stored.take(data);
  for (int r = 0; r < 16; r += kRowsAtOnce, tiles += kRowsAtOnce * kTileColumns) {
    const Byte* steps[kRowsAtOnce];
    for (int i = 0; i < kRowsAtOnce; ++i, ahead += F::kStepBytes) {
      steps[i] = stored.row(r + i);
      for (int at = 0; at < F::kStepBytes; at += 64) _mm_prefetch(ahead + at, _MM_HINT_T1);
    }
    if constexpr (type == TensorType::kMXFP4) {
      const BlockUnpacker<type> unpack;
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const Byte* codes = steps[i] + F::kCodesAt;
        for (int b = 0; b < blocks; ++b) {
          uint16_t* out = tiles + b * kTileValues + i * kTileColumns;
          unpack(steps[i][b], codes + b * F::kCodeBytes, out);
        }
      }
    } else {
      convert_steps<F>(steps, blocks, tiles);
    }
  }
}

}  // namespace

// Flattened, since the compiler would leave some formats' lambdas as calls.
template <TensorType type>
[[gnu::noinline, gnu::flatten]] void unpack_tiles(const TileRows& rows, int64_t step, int blocks,
                                                  uint16_t* tiles) {
  using Weights = Format<type>;
  if constexpr (kInterleaves<type>) {
    if (rows.w.interleaved) return unpack_turned<type>(rows, step, blocks, tiles);
  }
  const StepReader<Weights> reader(rows.w);
  const Byte* ahead = rows.ahead + step * Weights::kStepBytes;
  for (int r = 0; r < 16; r += kRowsAtOnce, tiles += kRowsAtOnce * kTileColumns) {
    Byte padded[kRowsAtOnce][Weights::kStepBytes];
    const Byte* steps[kRowsAtOnce];
    for (int i = 0; i < kRowsAtOnce; ++i, ahead += reader.row_bytes) {
      const int64_t row = rows.row + r + i;
      steps[i] = reader.at(row < rows.row_end ? row : rows.row_end - 1, step, padded[i]);
      reader.prefetch(ahead, 0);
    }
    if constexpr (kByBlock<type>) {
      const BlockUnpacker<type> unpack;
      for (int i = 0; i < kRowsAtOnce; ++i) {
        for (int b = 0; b < blocks; ++b) {
          unpack(steps[i] + b * unpack.kBytes, tiles + b * kTileValues + i * kTileColumns);
        }
      }
    } else {
      convert_steps<Weights>(steps, blocks, tiles);
    }
  }
}

}  // namespace hearth::HEARTH_ISA
