// Weights as tiles of bfloat16: sixteen rows by 32 columns, a row of 64 bytes for each row of the
// matrix. The columns of a block lie in the order 0, 2 .. 30, 1, 3 .. 31, in which packed codes
// come apart; the tokens' columns do too (RoundedRows).
#pragma once

#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kTileColumns = 32;
constexpr int kTileValues = 16 * kTileColumns;
constexpr int kUnpackColumns = 256;  // a step: the least that is unpacked at a time

}  // namespace

// Up to sixteen rows of a matrix, and what is asked for meanwhile.
struct TileRows {
  Matrix w;
  int64_t row;
  int64_t row_end;             // there are no rows from here on; nothing is written for them
  const unsigned char* ahead;  // weights like the first of these rows, read some time later
};

// Tiles of a step's `blocks` blocks, up to eight, one after the other.
template <TensorType type>
void unpack_tiles(const TileRows& rows, int64_t step, int blocks, uint16_t* tiles);

// Matmul for tens of tokens.
template <TensorType type>
void matmul_few(const MatmulParams& p);

// Matmul of Q8_0 for a batch that decodes, to the bit as AVX-512's.
void matmul_bytes(const MatmulParams& p);

// Matmul for hundreds.
using Unpack = void (*)(const TileRows&, int64_t, int, uint16_t*);
void matmul_many(const MatmulParams& p, Unpack unpack);

}  // namespace hearth::HEARTH_ISA
