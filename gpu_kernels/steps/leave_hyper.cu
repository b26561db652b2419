#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A thread takes one column of a row: it holds that of every stream before it writes the first.
template <int kMost>
__global__ void __launch_bounds__(kBlockThreads) leave_kernel(GpuLeaveHyperParams p) {
  const int32_t count = p.stream_count;
  for (int64_t i = stride_begin(); i < p.n * p.dim; i += stride_step()) {
    const int64_t row = i / p.dim, first = row * count * p.dim + i % p.dim;
    const float* coefficients = p.coefficients + row * count * (count + 1);
    const float output = p.output[i];
    float values[kMost];
    HEARTH_UNROLL
    for (int j = 0; j < kMost; ++j) values[j] = j < count ? p.streams[first + j * p.dim] : 0.0f;
    HEARTH_UNROLL
    for (int k = 0; k < kMost; ++k) {
      if (k >= count) break;
      const float* of_stream = coefficients + k * (count + 1);
      float sum = 0;
      HEARTH_UNROLL
      for (int j = 0; j < kMost; ++j) {
        if (j < count) sum = fmaf(of_stream[j], values[j], sum);
      }
      p.next[first + k * p.dim] = fmaf(of_stream[count], output, sum);
    }
  }
}

}  // namespace

void leave_hyper(const GpuLeaveHyperParams& params, GpuStream stream) {
  if (params.n * params.dim == 0) return;
  HEARTH_CHECK(params.stream_count <= kGpuStreamsMax);
  const auto kernel = params.stream_count <= 4 ? leave_kernel<4> : leave_kernel<kGpuStreamsMax>;
  launch(kernel, {stride_blocks(params.n * params.dim), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
