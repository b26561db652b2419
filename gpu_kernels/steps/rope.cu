#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A thread turns one pair.
__global__ void rope_kernel(GpuRopeParams p) {
  const int32_t pairs = p.rope_dim / 2;
  for (int64_t i = stride_begin(); i < p.n * p.heads * pairs; i += stride_step()) {
    const int64_t head = i / pairs, pair = i % pairs;
    const int64_t angle = head / p.heads * pairs + pair;
    float* x = p.x + head * p.dim + (p.dim - p.rope_dim) + 2 * pair;
    const float cosine = p.cosines[angle], sine = p.inverse ? -p.sines[angle] : p.sines[angle];
    const float a = x[0], b = x[1];
    x[0] = a * cosine - b * sine;
    x[1] = a * sine + b * cosine;
  }
}

}  // namespace

void rope(const GpuRopeParams& params, GpuStream stream) {
  const int64_t pairs = params.n * params.heads * (params.rope_dim / 2);
  if (pairs == 0) return;
  launch(rope_kernel, {stride_blocks(pairs), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
