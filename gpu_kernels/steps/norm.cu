#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A block takes one row.
__global__ void __launch_bounds__(kBlockThreads) rms_norm_kernel(GpuRmsNormParams p) {
  const float* x = p.x + blockIdx.x * p.k;
  float* y = p.y + blockIdx.x * p.k;
  __shared__ float sums[kBlockThreads / kWarpLanes];
  float sum = 0;
  for (int64_t i = threadIdx.x; i < p.k; i += kBlockThreads) sum = fmaf(x[i], x[i], sum);
  const float factor =
      1.0f / sqrtf(block_sum<kBlockThreads>(sum, sums) / static_cast<float>(p.k) + p.eps);
  for (int64_t i = threadIdx.x; i < p.k; i += kBlockThreads) {
    const float value = x[i] * factor;
    y[i] = p.gain != nullptr ? value * p.gain[i] : value;
  }
}

}  // namespace

void rms_norm(const GpuRmsNormParams& params, GpuStream stream) {
  if (params.n == 0) return;
  launch(rms_norm_kernel, {static_cast<uint32_t>(params.n), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
