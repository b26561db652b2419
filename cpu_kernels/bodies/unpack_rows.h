// Unpacking of the codebook formats with byte permutes, for groups of rows that stream by. Tables
// of 256 and more entries are several permutes, of which masks pick; two rows of eight weights
// share one, since their 32 indices fill half a vector.
#pragma once

#ifdef __AVX512F__

#include "base/codebooks.h"
#include "cpu_kernels/bodies/packed_rows.h"
#include "cpu_kernels/bodies/unpack.h"

namespace hearth::HEARTH_ISA {
namespace {

// table[index], the index's low seven bits.
HEARTH_INLINE Bytes look_up_128(const uint8_t* table, Bytes indices) {
  return _mm512_permutex2var_epi8(load_bytes(table), indices, load_bytes(table + 64));
}

// Bits 7, 8 and 9 of each index.
struct IndexBits {
  __mmask64 seventh;
  __mmask64 eighth;
  __mmask64 ninth;
};

template <int entries>
HEARTH_INLINE Bytes look_up_large(const uint8_t* table, Bytes indices, const IndexBits& bits) {
  if constexpr (entries == 128) return look_up_128(table, indices);
  constexpr int kHalf = entries / 2;
  const __mmask64 bit = entries == 256 ? bits.seventh : entries == 512 ? bits.eighth : bits.ninth;
  return _mm512_mask_mov_epi8(look_up_large<kHalf>(table, indices, bits), bit,
                              look_up_large<kHalf>(table + kHalf, indices, bits));
}

// Fields of 64 rows of a codebook.
struct RowFields {
  Bytes low;
  Bytes high;
};

template <int entries>
HEARTH_INLINE RowFields look_up_rows(const PackedRows& rows, Bytes indices, __mmask64 eighth,
                                     __mmask64 ninth) {
  const IndexBits bits = {_mm512_movepi8_mask(indices), eighth, ninth};
  return {look_up_large<entries>(rows.low, indices, bits),
          look_up_large<entries>(rows.high, indices, bits)};
}

// Where a step has a byte for eight weights: at `first`, `pitch` times their number in the block
// and `block_pitch` times the block.
struct RowPlaces {
  int first;
  int block_pitch;
  int pitch;

  constexpr int64_t at(int block, int eight) const {
    return first + block_pitch * block + pitch * eight;
  }
  constexpr __mmask64 all() const {
    __mmask64 bytes = 0;
    for (int i = 0; i < 32; ++i) bytes |= __mmask64{1} << at(i / 4, i % 4);
    return bytes;
  }
};

// Eight weights a qword: fields of `bits` bits from its first bit on, signs in its fifth byte.
template <int bits>
HEARTH_INLINE Bytes signed_values(const PackedRows& rows, Bytes packed) {
  constexpr int kCodeBits = bits == 2 ? 2 : 3;
  const Bytes field_shifts = _mm512_set1_epi64(0x0706050403020100 * bits);
  const Bytes sign_shifts = _mm512_set1_epi64(0x0706050403020100 + kEveryByte * (32 - kCodeBits));
  // The code from one, the sign above it from the other; a permute ignores the two bits on top.
  const Bytes numbers = _mm512_ternarylogic_epi64(
      splat((1 << kCodeBits) - 1), _mm512_multishift_epi64_epi8(field_shifts, packed),
      _mm512_multishift_epi64_epi8(sign_shifts, packed), 0xca);
  return _mm512_permutexvar_epi8(numbers, load_bytes(rows.values));
}

// The halves of all blocks: half(first block, 0 or 1).
template <typename F>
HEARTH_INLINE void fill_codes(Codes* out, F half) {
  for (int v = 0; v < kVectors; ++v) out[v] = {half(v * kPieces, 0), half(v * kPieces, 1)};
}

// Rows of eight weights. The signs lie where the fields of the other row do.
template <RowPlaces places, RowPlaces sign_places>
HEARTH_INLINE void codes_of_eights(const PackedRows& rows, const RowFields& fields, Bytes signs,
                                   Codes* out) {
  const Bytes low = _mm512_mask_mov_epi8(fields.low, sign_places.all(), signs);
  fill_codes(out, [&](int first, int half) {
    const Bytes at = from_pairs([&](int i) {
      const int block = first + i / 2, eight = 2 * half + i % 2;
      const int64_t place = places.at(block, eight);
      return place | (64 + place) << 8 | sign_places.at(block, eight) << 32;
    });
    return signed_values<2>(rows, _mm512_permutex2var_epi8(low, at, fields.high));
  });
}

// Rows of four weights, in order. A block's signs begin `sign_pitch` bytes after the last one's.
template <int sign_pitch>
HEARTH_INLINE void codes_of_fours(const PackedRows& rows, const RowFields& fields, Bytes signs,
                                  Codes* out) {
  fill_codes(out, [&](int first, int half) {
    const Bytes at = from_pairs([&](int i) {
      const int64_t place = 8 * (first + i / 2) + 2 * (2 * half + i % 2);
      const int64_t pair = place | (64 + place) << 8;
      return pair | (pair + 0x0101) << 16;
    });
    const Bytes signs_at = from_pairs([&](int i) {
      const int64_t place = sign_pitch * (first + i / 2) + 2 * half + i % 2;
      return place << 32;
    });
    constexpr __mmask64 kFifthBytes = 0x1010101010101010;
    return signed_values<4>(
        rows, _mm512_mask_permutexvar_epi8(_mm512_permutex2var_epi8(fields.low, at, fields.high),
                                           kFifthBytes, signs_at, signs));
  });
}

// Four times seven sign bits from bit `first` of each qword: bytes first_byte .. first_byte + 3 of
// the result.
template <int first, int first_byte>
HEARTH_INLINE Bytes look_up_signs(Bytes v) {
  constexpr int64_t kShifts = 0x150e0700 + 0x01010101ll * first;
  const Bytes shifts = _mm512_set1_epi64(kShifts << (8 * first_byte));
  return look_up_128(kIqSigns, _mm512_multishift_epi64_epi8(shifts, v));
}

}  // namespace
}  // namespace hearth::HEARTH_ISA

#endif
