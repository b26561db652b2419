#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/rounding.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A thread takes four values. Threads past the last block do that one again, so that whole warps
// shuffle.
__global__ void __launch_bounds__(kBlockThreads) quantize_kernel(GpuQuantizeParams p) {
  const int64_t quads = p.n * p.k / 4;
  const int64_t own = static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
  const int64_t quad = own < quads ? own : quads - kQuadBlockLanes + own % kQuadBlockLanes;
  round_quad(reinterpret_cast<const float4*>(p.x)[quad], quad, kAllLanes, p.out);
}

}  // namespace

void quantize(const GpuQuantizeParams& params, GpuStream stream) {
  HEARTH_CHECK(params.k % 32 == 0);
  if (params.n * params.k == 0) return;
  const int64_t blocks = divide_up(params.n * params.k / 4, kBlockThreads);
  launch(quantize_kernel, {static_cast<uint32_t>(blocks), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
