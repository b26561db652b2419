// What a format's source makes its function of.
#pragma once

#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

template <typename F>
void multiply(const GpuMatmulParams& params, GpuStream stream) {
  if (reads_bfloat16s(params)) return multiply_many<F>(params, stream);
  multiply_few<F>(params, stream);
}

}  // namespace hearth::HEARTH_GPU
