#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

__global__ void add_kernel(GpuAddParams p) {
  for (int64_t i = stride_begin(); i < p.count; i += stride_step()) p.out[i] += p.x[i];
}

}  // namespace

void add(const GpuAddParams& params, GpuStream stream) {
  if (params.count == 0) return;
  launch(add_kernel, {stride_blocks(params.count), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
