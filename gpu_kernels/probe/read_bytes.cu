// What memory gives at best: every thread has several reads of 16 bytes on their way at a time.
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kLoads = 4;  // of a thread at a time
constexpr int kThreads = static_cast<int>(kBlockThreads);
constexpr int64_t kBlockUnits = kGpuReadBlockBytes / 16;

__device__ __forceinline__ uint32_t sum_of_words(const uint4& unit) {
  return unit.x + unit.y + unit.z + unit.w;
}

__global__ void __launch_bounds__(kBlockThreads) read_bytes_kernel(GpuReadBytesParams p) {
  const int64_t first = blockIdx.x * kBlockUnits, left = p.bytes / 16 - first;
  const int count = static_cast<int>(left < kBlockUnits ? left : kBlockUnits);
  const uint4* units = static_cast<const uint4*>(p.data) + first;
  uint32_t sum = 0;
  for (int at = static_cast<int>(threadIdx.x); at < count; at += kLoads * kThreads) {
    uint4 loaded[kLoads];
    HEARTH_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int unit = at + i * kThreads;
      loaded[i] = unit < count ? units[unit] : make_uint4(0, 0, 0, 0);
    }
    HEARTH_UNROLL
    for (int i = 0; i < kLoads; ++i) sum += sum_of_words(loaded[i]);
  }

  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  __shared__ uint32_t warp_sums[kThreads / kWarpLanes];
  if (threadIdx.x % kWarpLanes == 0) warp_sums[threadIdx.x / kWarpLanes] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / kWarpLanes; ++i) sum += warp_sums[i];
  p.sums[blockIdx.x] = sum;
}

}  // namespace

void read_bytes(const GpuReadBytesParams& params, GpuStream stream) {
  HEARTH_CHECK(params.bytes % 16 == 0);
  if (params.bytes == 0) return;
  const int64_t blocks = divide_up(params.bytes, kGpuReadBlockBytes);
  launch(read_bytes_kernel, {static_cast<uint32_t>(blocks), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
