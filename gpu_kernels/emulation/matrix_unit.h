// The instructions of tensor cores: what the lanes of a warp do with matrices that lie in the
// registers of all of them.
#pragma once

#include <cstdint>
#include <source_location>

namespace hearth::emulated {

// Four matrices of 8 rows of 16 bytes; row i of matrix m is where lane 8 m + i says. Word j of the
// row goes to lane 4 i + j, into out[m].
void load_matrices(uint32_t (&out)[4], const void* row,
                   const std::source_location& place = std::source_location::current());

// Of the same matrices, of 16-bit values: rows 2 j and 2 j + 1 of column i go to lane 4 i + j.
void load_matrices_transposed(uint32_t (&out)[4], const void* row,
                              const std::source_location& place = std::source_location::current());

// sums [16, 8] += a [16, 16] b [16, 8], of bfloat16s, two in a word. With i = lane / 4 and j = lane
// % 4 a lane has
//   sums     rows i, i, i + 8, i + 8, columns 2 j, 2 j + 1, 2 j, 2 j + 1
//   a        rows i, i + 8, i, i + 8, columns 2 j and 2 j + 1, the last two words 8 columns on
//   b0, b1   column i, rows 2 j and 2 j + 1, and 8 rows on
void multiply_matrices(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                       const std::source_location& place = std::source_location::current());

}  // namespace hearth::emulated
