#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

__global__ void weighted_sum_kernel(GpuWeightedSumParams p) {
  for (int64_t i = stride_begin(); i < p.n * p.width; i += stride_step()) {
    const int64_t row = i / p.width, column = i % p.width;
    const float* weights = p.weights + row * p.terms;
    const float* values = p.rows + row * p.terms * p.width + column;
    float sum = 0;
    for (int32_t t = 0; t < p.terms; ++t) sum = fmaf(weights[t], values[t * p.width], sum);
    p.out[i] = sum;
  }
}

}  // namespace

void weighted_sum(const GpuWeightedSumParams& params, GpuStream stream) {
  if (params.n * params.width == 0) return;
  launch(weighted_sum_kernel, {stride_blocks(params.n * params.width), kBlockThreads}, stream,
         params);
}

}  // namespace hearth::HEARTH_GPU
