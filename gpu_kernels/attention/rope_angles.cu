#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

__global__ void rope_angles_kernel(GpuRopeAnglesParams p) {
  for (int64_t i = stride_begin(); i < p.n * p.pairs; i += stride_step()) {
    const int64_t position = p.rows[i / p.pairs].position;
    const double angle =
        static_cast<double>(position - position % p.ratio) * p.frequencies[i % p.pairs];
    p.cosines[i] = static_cast<float>(cos(angle));
    p.sines[i] = static_cast<float>(sin(angle));
  }
}

}  // namespace

void rope_angles(const GpuRopeAnglesParams& params, GpuStream stream) {
  if (params.n * params.pairs == 0) return;
  launch(rope_angles_kernel, {stride_blocks(params.n * params.pairs), kBlockThreads}, stream,
         params);
}

}  // namespace hearth::HEARTH_GPU
