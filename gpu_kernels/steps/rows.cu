// Sums and copies of rows.
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

__global__ void add_kernel(GpuAddParams p) {
  for (int64_t i = stride_begin(); i < p.count; i += stride_step()) p.out[i] += p.x[i];
}

__global__ void gather_kernel(GpuGatherParams p) {
  for (int64_t i = stride_begin(); i < p.n * p.width; i += stride_step()) {
    p.out[i] = p.x[p.rows[i / p.width] * p.width + i % p.width];
  }
}

}  // namespace

void add(const GpuAddParams& params, GpuStream stream) {
  if (params.count == 0) return;
  launch(add_kernel, {stride_blocks(params.count), kBlockThreads}, stream, params);
}

void gather(const GpuGatherParams& params, GpuStream stream) {
  if (params.n * params.width == 0) return;
  launch(gather_kernel, {stride_blocks(params.n * params.width), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
