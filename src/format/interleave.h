// Rows of a matrix in the order in which vector units read them fastest: see Matrix::interleaved.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

// Whether rows of this type are worth it, and kernels take them so.
bool can_interleave(TensorType type, int64_t rows);

// Interleaves kInterleavedRows rows that follow each other, in place. `scratch` has room for them.
void interleave_rows(TensorType type, int64_t cols, unsigned char* rows, unsigned char* scratch);

}  // namespace hearth
