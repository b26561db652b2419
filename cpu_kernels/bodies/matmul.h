// The two families of matmul bodies. One explicit instantiation a type, spread over files so that
// they compile in parallel.
#pragma once

#include "cpu_kernels/bodies/isa.h"

namespace hearth::HEARTH_ISA {
namespace {

// The rows of x and y of the call's i-th token.
inline int64_t x_row(const MatmulParams& p, int64_t i) {
  return p.x_rows != nullptr ? p.x_rows[i] : i;
}
inline float* y_row(const MatmulParams& p, int64_t i) {
  return p.y + (p.y_rows != nullptr ? p.y_rows[i] : i) * p.y_stride;
}

}  // namespace

// F32, F16, BF16: matmul_plain.cpp.
template <TensorType type>
void matmul_plain(const MatmulParams& p);

// F8_E4M3: matmul_f8.cpp.
void matmul_f8(const MatmulParams& p);

// Block formats: matmul_small.cpp, matmul_k.cpp, matmul_iq.cpp.
template <TensorType type>
void matmul_blocks(const MatmulParams& p);

// Interleaved matrices, where the table reads them: matmul_interleaved.cpp.
void matmul_interleaved(const MatmulParams& p);

}  // namespace hearth::HEARTH_ISA
