// Byte vectors of the block-format matmuls: 64 or 32 bytes, handled as pieces of 16. A piece is
// half a block of 32 weights. Weights and activations are brought into one arrangement, "halves":
// vector v of `lo` holds the first 16 values of blocks kPieces v .. kPieces v + kPieces - 1, vector
// v of `hi` their last 16.
#pragma once

#include <immintrin.h>

#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

#define HEARTH_INLINE __attribute__((always_inline)) inline

using Byte = unsigned char;

constexpr int kStepColumns = 256;  // columns unpacked at a time
constexpr int kStepBlocks = kStepColumns / kQuantBlock;
constexpr int kFloats = 8;  // floats of an __m256: one for each block of a step

#ifdef __AVX512F__
using Bytes = __m512i;
constexpr int kPieces = 4;
constexpr bool kCanPair = true;  // blocks that share bytes are unpacked together
#else
using Bytes = __m256i;
constexpr int kPieces = 2;
constexpr bool kCanPair = false;
#endif
constexpr int kVectors = kStepBlocks / kPieces;  // vectors of `lo`, and of `hi`, in a step
constexpr int kTileRows = static_cast<int>(sizeof(Bytes)) / 4;

HEARTH_INLINE __m128i load_piece(const Byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
HEARTH_INLINE void store_piece(Byte* p, __m128i piece) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), piece);
}

constexpr int kLineBytes = 64;

// Asks for a line, into the second-level cache: by the time of use the first would have lost it.
// Made where `v` is about to be used, which no compiler moves it away from: in bursts, as they
// would gather them, requests wait for each other and loads for them.
HEARTH_INLINE void ask_beside(Bytes& v, const Byte* line) {
  asm volatile("prefetcht1 %1" : "+v"(v) : "m"(*line));
}

constexpr int64_t kEveryByte = 0x0101010101010101;
constexpr uint64_t kBitOfByte = 0x8040201008040201;  // bit i of byte i

template <typename T>
HEARTH_INLINE T load_as(const Byte* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(T));
  return value;
}

#ifdef __AVX512F__

HEARTH_INLINE Bytes zero() { return _mm512_setzero_si512(); }
HEARTH_INLINE Bytes splat(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
HEARTH_INLINE Bytes splat_word(int32_t word) { return _mm512_set1_epi32(word); }
HEARTH_INLINE Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
// The same for a vector that is used several times: the compiler would repeat the load, which
// mostly touches two cache lines, in each instruction.
HEARTH_INLINE Bytes load_once(const void* p) {
  Bytes v = load_bytes(p);
  asm("" : "+v"(v));
  return v;
}
HEARTH_INLINE void store_bytes(void* p, Bytes v) { _mm512_storeu_si512(p, v); }
HEARTH_INLINE Bytes add_bytes(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
HEARTH_INLINE Bytes subtract_words(Bytes a, Bytes b) { return _mm512_sub_epi32(a, b); }

// The same piece everywhere.
HEARTH_INLINE Bytes repeat_piece(__m128i piece) { return _mm512_broadcast_i32x4(piece); }

// Piece i is the 16 bytes at address(i).
template <typename F>
HEARTH_INLINE Bytes load_pieces(F address) {
  auto pair = [&](int i) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_piece(address(i))),
                                   load_piece(address(i + 1)), 1);
  };
  return _mm512_inserti64x4(_mm512_castsi256_si512(pair(0)), pair(2), 1);
}
// Piece i to address(i).
template <typename F>
HEARTH_INLINE void store_pieces(Bytes v, F address) {
  store_piece(address(0), _mm512_castsi512_si128(v));
  store_piece(address(1), _mm512_extracti32x4_epi32(v, 1));
  store_piece(address(2), _mm512_extracti32x4_epi32(v, 2));
  store_piece(address(3), _mm512_extracti32x4_epi32(v, 3));
}

// Each 32-bit word of piece i is word(i), a constant.
template <typename F>
HEARTH_INLINE Bytes per_piece(F word) {
  const int a = word(0), b = word(1), c = word(2), d = word(3);
  return _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
}

// Shifts 32-bit words, each by its own count: bits cross bytes, the caller masks them off.
HEARTH_INLINE Bytes shift_right(Bytes v, Bytes counts) { return _mm512_srlv_epi32(v, counts); }
template <int count>
HEARTH_INLINE Bytes shift_right(Bytes v) {
  return _mm512_srli_epi32(v, count);
}
template <int count>
HEARTH_INLINE Bytes shift_left(Bytes v) {
  return _mm512_slli_epi32(v, count);
}

// table[index] for indices 0 .. 15.
HEARTH_INLINE Bytes look_up(__m128i table, Bytes indices) {
  return _mm512_shuffle_epi8(repeat_piece(table), indices);
}
// The same with a table for each piece.
HEARTH_INLINE Bytes look_up(Bytes tables, Bytes indices) {
  return _mm512_shuffle_epi8(tables, indices);
}
HEARTH_INLINE Bytes multiply_words(Bytes a, Bytes b) { return _mm512_mullo_epi32(a, b); }
// The same by the low nibble of each byte. (A permute reads six bits; the table is there four
// times.)
HEARTH_INLINE Bytes look_up_nibble(__m128i table, Bytes v) {
  return _mm512_permutexvar_epi8(v, repeat_piece(table));
}
// Eight times byte a, then eight times byte b of each piece.
template <int a, int b>
HEARTH_INLINE Bytes spread_bytes(Bytes v) {
  return _mm512_shuffle_epi8(v, repeat_piece(_mm_set_epi64x(b * kEveryByte, a * kEveryByte)));
}

// Byte i is v's where bit i % 8 of byte i of `bits` is set, else zero.
HEARTH_INLINE Bytes keep_where(Bytes bits, Bytes v) {
  const Bytes bit = _mm512_set1_epi64(static_cast<int64_t>(kBitOfByte));
  return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(bits, bit), v);
}
// Byte i is -v where bit i % 8 of byte i of `bits` is set, else v.
HEARTH_INLINE Bytes negate_where(Bytes bits, Bytes v) {
  const Bytes bit = _mm512_set1_epi64(static_cast<int64_t>(kBitOfByte));
  return _mm512_mask_sub_epi8(v, _mm512_test_epi8_mask(bits, bit), zero(), v);
}

// Words given one by one: word(0), word(1) ..
template <typename F>
HEARTH_INLINE Bytes from_words(F word) {
  return _mm512_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7),
                           word(8), word(9), word(10), word(11), word(12), word(13), word(14),
                           word(15));
}
// a | (b & mask)
HEARTH_INLINE Bytes or_masked(Bytes a, Bytes b, Bytes mask) {
  return _mm512_ternarylogic_epi32(b, mask, a, 0xea);
}
// Moves bit `counts` of each byte, which each word has its own of, to bit `place`; other bits of
// the result are any.
template <int place>
HEARTH_INLINE Bytes move_bit(Bytes v, Bytes counts) {
  return _mm512_rolv_epi32(v, _mm512_sub_epi32(splat_word(place), counts));
}

// Pairs of words.
template <typename F>
HEARTH_INLINE Bytes from_pairs(F pair) {
  return _mm512_setr_epi64(pair(0), pair(1), pair(2), pair(3), pair(4), pair(5), pair(6), pair(7));
}

// sum + products of unsigned codes u <= code_max and signed codes x, four neighbours to a 32-bit
// word.
template <int code_max>
HEARTH_INLINE Bytes dot_add(Bytes sum, Bytes u, Bytes x) {
  return _mm512_dpbusd_epi32(sum, u, x);
}
template <int code_max>
HEARTH_INLINE Bytes dot_add(Bytes sum, Bytes u0, Bytes x0, Bytes u1, Bytes x1) {
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, u0, x0), u1, x1);
}

// True where dot_add reads u as the signed code u - 128.
template <int code_max>
constexpr bool kDotIsSigned = false;

// Its last 32 bytes, then its first.
HEARTH_INLINE Bytes swap_halves(Bytes v) { return _mm512_shuffle_i64x2(v, v, 0x4e); }

// Natural order (lo and hi of each block adjacent) to halves.
HEARTH_INLINE void split_halves(Bytes first, Bytes second, Bytes& lo, Bytes& hi) {
  lo = _mm512_shuffle_i64x2(first, second, 0x88);
  hi = _mm512_shuffle_i64x2(first, second, 0xdd);
}

// The same for a step. Paired: vector 0 gets the even blocks, vector 1 the odd ones.
template <bool paired>
HEARTH_INLINE void split_step(const Bytes* natural, Bytes* lo, Bytes* hi) {
  if constexpr (!paired) {
    for (int v = 0; v < kVectors; ++v) {
      split_halves(natural[2 * v], natural[2 * v + 1], lo[v], hi[v]);
    }
    return;
  }
  const Bytes even0 = _mm512_shuffle_i64x2(natural[0], natural[1], 0x44);
  const Bytes even1 = _mm512_shuffle_i64x2(natural[2], natural[3], 0x44);
  const Bytes odd0 = _mm512_shuffle_i64x2(natural[0], natural[1], 0xee);
  const Bytes odd1 = _mm512_shuffle_i64x2(natural[2], natural[3], 0xee);
  split_halves(even0, even1, lo[0], hi[0]);
  split_halves(odd0, odd1, lo[1], hi[1]);
}

// The sum of each piece of four vectors. Word 4 i + j of the result belongs to piece i of vector
// (0, 2, 1, 3)[j]. Blends are cheap, shuffles are what runs out, so there are few of those.
HEARTH_INLINE Bytes piece_sums(Bytes a, Bytes b, Bytes c, Bytes d) {
  auto add_pairs = [](Bytes x, Bytes y) {  // per piece: two sums of x, two of y
    const __m512d first = _mm512_castsi512_pd(x), second = _mm512_castsi512_pd(y);
    return _mm512_add_epi32(_mm512_mask_blend_epi64(0xaa, x, y),
                            _mm512_castpd_si512(_mm512_shuffle_pd(first, second, 0x55)));
  };
  const Bytes ab = add_pairs(a, b), cd = add_pairs(c, d);
  const Bytes crossed = _mm512_mask_blend_epi32(0xaaaa, cd, ab);
  return _mm512_add_epi32(_mm512_mask_blend_epi32(0xaaaa, ab, cd),
                          _mm512_shuffle_epi32(crossed, _MM_PERM_CDAB));
}

HEARTH_INLINE Bytes interleave_words_low(Bytes a, Bytes b) { return _mm512_unpacklo_epi32(a, b); }
HEARTH_INLINE Bytes interleave_words_high(Bytes a, Bytes b) { return _mm512_unpackhi_epi32(a, b); }
HEARTH_INLINE Bytes interleave_pairs_low(Bytes a, Bytes b) { return _mm512_unpacklo_epi64(a, b); }
HEARTH_INLINE Bytes interleave_pairs_high(Bytes a, Bytes b) { return _mm512_unpackhi_epi64(a, b); }

// Floats of the tile kernel, one lane a row.
using RowFloats = __m512;
HEARTH_INLINE RowFloats load_floats(const float* p) { return _mm512_loadu_ps(p); }
HEARTH_INLINE void store_floats(float* p, RowFloats v) { _mm512_storeu_ps(p, v); }
HEARTH_INLINE RowFloats splat_float(float value) { return _mm512_set1_ps(value); }
HEARTH_INLINE RowFloats to_floats(Bytes words) { return _mm512_cvtepi32_ps(words); }
HEARTH_INLINE RowFloats fused_add(RowFloats a, RowFloats b, RowFloats sum) {
  return _mm512_fmadd_ps(a, b, sum);
}

#else

// The same with 32 bytes.

HEARTH_INLINE Bytes zero() { return _mm256_setzero_si256(); }
HEARTH_INLINE Bytes splat(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
HEARTH_INLINE Bytes splat_word(int32_t word) { return _mm256_set1_epi32(word); }
HEARTH_INLINE Bytes load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
HEARTH_INLINE void store_bytes(void* p, Bytes v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}
HEARTH_INLINE Bytes add_bytes(Bytes a, Bytes b) { return _mm256_add_epi8(a, b); }
HEARTH_INLINE Bytes subtract_words(Bytes a, Bytes b) { return _mm256_sub_epi32(a, b); }

HEARTH_INLINE Bytes repeat_piece(__m128i piece) { return _mm256_broadcastsi128_si256(piece); }

template <typename F>
HEARTH_INLINE Bytes load_pieces(F address) {
  const Bytes v = _mm256_castsi128_si256(load_piece(address(0)));
  return _mm256_inserti128_si256(v, load_piece(address(1)), 1);
}
template <typename F>
HEARTH_INLINE void store_pieces(Bytes v, F address) {
  store_piece(address(0), _mm256_castsi256_si128(v));
  store_piece(address(1), _mm256_extracti128_si256(v, 1));
}

template <typename F>
HEARTH_INLINE Bytes per_piece(F word) {
  const int a = word(0), b = word(1);
  return _mm256_setr_epi32(a, a, a, a, b, b, b, b);
}

HEARTH_INLINE Bytes shift_right(Bytes v, Bytes counts) { return _mm256_srlv_epi32(v, counts); }
template <int count>
HEARTH_INLINE Bytes shift_right(Bytes v) {
  return _mm256_srli_epi32(v, count);
}
template <int count>
HEARTH_INLINE Bytes shift_left(Bytes v) {
  return _mm256_slli_epi32(v, count);
}

HEARTH_INLINE Bytes look_up(__m128i table, Bytes indices) {
  return _mm256_shuffle_epi8(repeat_piece(table), indices);
}
HEARTH_INLINE Bytes look_up(Bytes tables, Bytes indices) {
  return _mm256_shuffle_epi8(tables, indices);
}
HEARTH_INLINE Bytes multiply_words(Bytes a, Bytes b) { return _mm256_mullo_epi32(a, b); }
HEARTH_INLINE Bytes look_up_nibble(__m128i table, Bytes v) { return look_up(table, v & splat(15)); }
template <int a, int b>
HEARTH_INLINE Bytes spread_bytes(Bytes v) {
  return _mm256_shuffle_epi8(v, repeat_piece(_mm_set_epi64x(b * kEveryByte, a * kEveryByte)));
}

// Byte i is all ones where bit i % 8 of byte i is set.
HEARTH_INLINE Bytes expand_bits(Bytes bits) {
  const Bytes bit = _mm256_set1_epi64x(static_cast<int64_t>(kBitOfByte));
  return _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
}
HEARTH_INLINE Bytes keep_where(Bytes bits, Bytes v) { return expand_bits(bits) & v; }
HEARTH_INLINE Bytes negate_where(Bytes bits, Bytes v) {
  const Bytes mask = expand_bits(bits);
  return _mm256_sub_epi8(v ^ mask, mask);
}

template <typename F>
HEARTH_INLINE Bytes from_words(F word) {
  return _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}
HEARTH_INLINE Bytes or_masked(Bytes a, Bytes b, Bytes mask) { return a | (b & mask); }
template <int place>
HEARTH_INLINE Bytes move_bit(Bytes v, Bytes counts) {
  return shift_left<place>(shift_right(v, counts));
}

template <typename F>
HEARTH_INLINE Bytes from_pairs(F pair) {
  return _mm256_setr_epi64x(pair(0), pair(1), pair(2), pair(3));
}

// Products of unsigned codes u <= code_max and signed codes x (|x| <= 127), pairs added to 16 bits.
// They cannot saturate: codes above 127 are taken as u - 128, magnitude and sign apart.
template <int code_max>
HEARTH_INLINE Bytes dot_pairs(Bytes u, Bytes x) {
  if constexpr (code_max > 127) {
    const Bytes w = u ^ splat(0x80);
    x = _mm256_sign_epi8(x, w);
    u = _mm256_abs_epi8(w);
  }
  return _mm256_maddubs_epi16(u, x);
}
HEARTH_INLINE Bytes add_pairs(Bytes sum, Bytes pairs) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <int code_max>
HEARTH_INLINE Bytes dot_add(Bytes sum, Bytes u, Bytes x) {
  return add_pairs(sum, dot_pairs<code_max>(u, x));
}
template <int code_max>
HEARTH_INLINE Bytes dot_add(Bytes sum, Bytes u0, Bytes x0, Bytes u1, Bytes x1) {
  const Bytes pairs0 = dot_pairs<code_max>(u0, x0), pairs1 = dot_pairs<code_max>(u1, x1);
  if constexpr (4 * code_max * 127 <= INT16_MAX) {
    return add_pairs(sum, _mm256_add_epi16(pairs0, pairs1));
  }
  return add_pairs(add_pairs(sum, pairs0), pairs1);
}

template <int code_max>
constexpr bool kDotIsSigned = code_max > 127;

HEARTH_INLINE void split_halves(Bytes first, Bytes second, Bytes& lo, Bytes& hi) {
  lo = _mm256_permute2x128_si256(first, second, 0x20);
  hi = _mm256_permute2x128_si256(first, second, 0x31);
}
template <bool>
HEARTH_INLINE void split_step(const Bytes* natural, Bytes* lo, Bytes* hi) {
  for (int v = 0; v < kVectors; ++v) {
    split_halves(natural[2 * v], natural[2 * v + 1], lo[v], hi[v]);
  }
}

HEARTH_INLINE Bytes piece_sums(Bytes a, Bytes b, Bytes c, Bytes d) {
  auto add_pairs = [](Bytes x, Bytes y) {
    const __m256d first = _mm256_castsi256_pd(x), second = _mm256_castsi256_pd(y);
    return _mm256_add_epi32(_mm256_blend_epi32(x, y, 0xcc),
                            _mm256_castpd_si256(_mm256_shuffle_pd(first, second, 0x5)));
  };
  const Bytes ab = add_pairs(a, b), cd = add_pairs(c, d);
  const Bytes crossed = _mm256_blend_epi32(cd, ab, 0xaa);
  return _mm256_add_epi32(_mm256_blend_epi32(ab, cd, 0xaa), _mm256_shuffle_epi32(crossed, 0xb1));
}

HEARTH_INLINE Bytes interleave_words_low(Bytes a, Bytes b) { return _mm256_unpacklo_epi32(a, b); }
HEARTH_INLINE Bytes interleave_words_high(Bytes a, Bytes b) { return _mm256_unpackhi_epi32(a, b); }
HEARTH_INLINE Bytes interleave_pairs_low(Bytes a, Bytes b) { return _mm256_unpacklo_epi64(a, b); }
HEARTH_INLINE Bytes interleave_pairs_high(Bytes a, Bytes b) { return _mm256_unpackhi_epi64(a, b); }

using RowFloats = __m256;
HEARTH_INLINE RowFloats load_floats(const float* p) { return _mm256_loadu_ps(p); }
HEARTH_INLINE void store_floats(float* p, RowFloats v) { _mm256_storeu_ps(p, v); }
HEARTH_INLINE RowFloats splat_float(float value) { return _mm256_set1_ps(value); }
HEARTH_INLINE RowFloats to_floats(Bytes words) { return _mm256_cvtepi32_ps(words); }
HEARTH_INLINE RowFloats fused_add(RowFloats a, RowFloats b, RowFloats sum) {
  return _mm256_fmadd_ps(a, b, sum);
}

#endif

// Piece i of out[j] holds word j of piece i of each row.
HEARTH_INLINE void transpose_words(Bytes a, Bytes b, Bytes c, Bytes d, Byte (*out)[kTileRows][4]) {
  const Bytes low_ab = interleave_words_low(a, b), high_ab = interleave_words_high(a, b);
  const Bytes low_cd = interleave_words_low(c, d), high_cd = interleave_words_high(c, d);
  store_bytes(out[0], interleave_pairs_low(low_ab, low_cd));
  store_bytes(out[1], interleave_pairs_high(low_ab, low_cd));
  store_bytes(out[2], interleave_pairs_low(high_ab, high_cd));
  store_bytes(out[3], interleave_pairs_high(high_ab, high_cd));
}

HEARTH_INLINE float sum_lanes(RowFloats v) {
#ifdef __AVX512F__
  const __m256 high = _mm512_extractf32x8_ps(v, 1);
  const __m256 folded = _mm256_add_ps(_mm512_castps512_ps256(v), high);
#else
  const __m256 folded = v;
#endif
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(folded), _mm256_extractf128_ps(folded, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

}  // namespace
}  // namespace hearth::HEARTH_ISA
