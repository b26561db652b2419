// The one header that lets a kernel's source be CUDA for nvcc and host code for the tests: the
// names that CUDA gives (threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd ...) and these of
// ours, the same in both:
//
//   launch(kernel, {grid, block, shared_bytes}, stream, arguments...)
//   blocks_at_once(kernel, threads, shared_bytes)   that the device holds
//   device_limits()                      its processors and the shared memory a block may have
//   dynamic_shared<T>()                  the block's shared memory of run-time size, aligned to 16
//                                        bytes
//   copy16_async(shared, global), copy16_or_zeros_async(shared, global, is_there),
//   commit_copies(), wait_copies<N>()
//   dot4(a, b, sum)                      sum + the dot product of four signed bytes
//   pick_bytes(low, high, selectors)     four of eight bytes; each nibble of selectors is 0 .. 7
//   load_matrices(out, row)              four matrices of 8 rows of 16 bytes from shared memory
//   load_matrices_transposed(out, row)   the same, each of them transposed
//   multiply_matrices(sums, a, b0, b1)   sums += a b on tensor cores, bfloat16s [16, 16] and [16,
//                                        8]; emulation/matrix_unit.h says which lane has what
//
// An instruction that only hardware has stands behind such a name, with a plain twin for the host.
// A kernel never asks which of the two it runs on.
#pragma once

#include <cstdint>

#include "gpu_kernels/gpu_kernels.h"

#ifdef __CUDACC__
#include "gpu_kernels/common/simt_cuda.h"
#else
#include "gpu_kernels/emulation/simt_host.h"
#endif

namespace hearth::HEARTH_GPU {

constexpr int kWarpLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffff;

// Shared memory that a block may have on every GPU, and where there is most: a kernel that takes
// more than the least asks device_limits() first.
constexpr int kSharedLeast = 99 << 10, kSharedMost = 227 << 10;

}  // namespace hearth::HEARTH_GPU
