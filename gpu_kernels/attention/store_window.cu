#include "gpu_kernels/attention/kv_rows.h"
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

__global__ void store_window_kernel(GpuStoreWindowParams p) {
  for (int64_t i = stride_begin(); i < p.n * p.head_dim; i += stride_step()) {
    const GpuRow row = p.rows[i / p.head_dim];
    const GpuSequenceCache& cache = p.caches[row.sequence];
    const int64_t slot = row.position % cache.window_slots;
    store_kv(p.kv[i], p.kv_type, cache.window, slot * p.head_dim + i % p.head_dim);
  }
}

}  // namespace

void store_window(const GpuStoreWindowParams& params, GpuStream stream) {
  const int64_t values = params.n * params.head_dim;
  if (values == 0) return;
  launch(store_window_kernel, {stride_blocks(values), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
