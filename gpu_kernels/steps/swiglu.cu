#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

__global__ void swiglu_kernel(GpuSwigluParams p) {
  for (int64_t i = stride_begin(); i < p.count; i += stride_step()) {
    const float gate = fminf(p.gate[i], p.clamp);
    const float up = fminf(fmaxf(p.up[i], -p.clamp), p.clamp);
    p.out[i] = gate / (1.0f + expf(-gate)) * up;
  }
}

}  // namespace

void swiglu(const GpuSwigluParams& params, GpuStream stream) {
  if (params.count == 0) return;
  launch(swiglu_kernel, {stride_blocks(params.count), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
