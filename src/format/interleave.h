// Rows of a matrix in the order in which vector units read them fastest: see Matrix::interleaved.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

// Whether it is worth it for this type, and kernels take it so; and for this shape.
bool can_interleave(TensorType type);
bool can_interleave(TensorType type, int64_t rows, int64_t cols);

// Interleaves kInterleavedRows rows that follow each other, in place. `scratch` has room for them.
// MXFP4's blocks of 17 bytes have no words of 32 bits in common with each other: of each 256
// columns of a row, the eight exponents come first, then the codes.
void interleave_rows(TensorType type, int64_t cols, unsigned char* rows, unsigned char* scratch);

}  // namespace hearth
