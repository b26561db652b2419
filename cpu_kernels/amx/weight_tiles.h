// Weights as tiles of bfloat16: sixteen rows by 32 columns, a kilobyte. Row p of a tile has a pair
// of columns of every weight row. Pairs are (0, 2), (1, 3), (4, 6), (5, 7) and so on, the order in
// which packed codes come apart; the tokens' columns lie in the same order (RoundedRows).
#pragma once

#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kTileColumns = 32;
constexpr int kTileValues = 16 * kTileColumns;
constexpr int kUnpackColumns = 256;  // a step: the least that is unpacked at a time

}  // namespace

// Tiles of rows row .. row + 15, `blocks` of 32 columns one after the other, from step `first_step`
// on. Rows from `row_end` on repeat the last one before it.
template <TensorType type>
void unpack_tiles(const Matrix& w, int64_t row, int64_t row_end, int64_t first_step, int blocks,
                  uint16_t* tiles);

}  // namespace hearth::HEARTH_ISA
