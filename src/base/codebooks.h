// Tables that are part of the IQ and MXFP4 formats. Plain data: kernels include this header.
#pragma once

#include <cstdint>

namespace hearth {

// A 4-bit code's value.
extern const int8_t kIq4Values[16];  // IQ4_NL and IQ4_XS
extern const int8_t
    kMxfp4Values[16];  // MXFP4, doubled so that they are whole: the scale of byte e is 2^(e - 128)

// Seven sign bits to eight: bit 7 is the parity of the others. Bit i set: weight i is negative.
extern const uint8_t kIqSigns[128];

// Rows of 8 (uint64_t) or 4 (uint32_t) unsigned magnitudes, a byte each, the first weight in the
// lowest byte.
extern const uint64_t kIq2XxsRows[256];
extern const uint64_t kIq2XsRows[512];
extern const uint64_t kIq2SRows[1024];
extern const uint32_t kIq3XxsRows[256];
extern const uint32_t kIq3SRows[512];

}  // namespace hearth
