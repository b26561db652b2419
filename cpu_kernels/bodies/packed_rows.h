// The codebooks of the IQ2 and IQ3 formats with few bits a weight, so that whole vectors of rows
// come from byte permutes. Plain data, filled in packed_rows.cpp, which has no -m flags.
#pragma once

#include <cstdint>

namespace hearth {

constexpr int kPackedOffset = 64;  // added to a signed weight to make a byte of it

// Rows of eight have fields of two bits, the first four weights in `low`; rows of four have fields
// of four bits, the first two weights in `low`. A field is the number of a magnitude.
struct PackedRows {
  alignas(64) uint8_t low[1024];
  alignas(64) uint8_t high[1024];
  // By a magnitude's number with the sign on top of it (bit 2 or 3), repeated to 64 entries.
  alignas(64) uint8_t values[64];
};

extern const PackedRows kPackedIq2Xxs;
extern const PackedRows kPackedIq2Xs;
extern const PackedRows kPackedIq2S;
extern const PackedRows kPackedIq3Xxs;
extern const PackedRows kPackedIq3S;

}  // namespace hearth
