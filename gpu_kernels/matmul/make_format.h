// What a format's source makes its functions of.
#pragma once

#include "gpu_kernels/matmul/embed.h"
#include "gpu_kernels/matmul/experts.h"
#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

template <typename F>
void multiply(const GpuMatmulParams& params, GpuStream stream) {
  if (reads_bfloat16s(params)) return multiply_many<F>(params, stream);
  multiply_few<F>(params, stream);
}

template <typename F>
Format make_format() {
  return {multiply<F>, embed_rows<F>, hidden_of_experts<F>, output_of_experts<F>};
}

}  // namespace hearth::HEARTH_GPU
