// How work is cut into blocks.
#pragma once

#include "gpu_kernels/common/simt.h"

namespace hearth::HEARTH_GPU {

constexpr uint32_t kBlockThreads = 256;
constexpr int64_t kStrideBlocksMax = 4096;  // enough for any GPU, more would only be more to start

__host__ __device__ constexpr int64_t divide_up(int64_t count, int64_t by) {
  return (count + by - 1) / by;
}

// Blocks for kernels that go through `count` items in strides of the whole grid.
inline uint32_t stride_blocks(int64_t count) {
  const int64_t blocks = divide_up(count, kBlockThreads);
  return static_cast<uint32_t>(blocks < kStrideBlocksMax ? blocks : kStrideBlocksMax);
}

// The first item of this thread, and what leads to its next.
__device__ __forceinline__ int64_t stride_begin() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t stride_step() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace hearth::HEARTH_GPU
