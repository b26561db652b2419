// simt.h for nvcc: what CUDA lacks of the names there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>
#include <source_location>
#include <type_traits>
#include <unordered_map>

#include "base/check.h"
#include "gpu_kernels/gpu_kernels.h"

#define HEARTH_UNROLL _Pragma("unroll")
#define HEARTH_NO_UNROLL _Pragma("unroll 1")

namespace hearth::HEARTH_GPU {

template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 hearth_dynamic_shared[];
  return reinterpret_cast<T*>(hearth_dynamic_shared);
}

__device__ __forceinline__ void copy16_async(void* shared, const void* global) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(to), "l"(global) : "memory");
}

__device__ __forceinline__ void copy16_or_zeros_async(void* shared, const void* global,
                                                      bool is_there) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(to), "l"(global), "r"(is_there ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" : : : "memory");
}

// Waits for all of this thread's copies but those of the last `kLeft` commits.
template <int kLeft>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kLeft) : "memory");
}

__device__ __forceinline__ int32_t dot4(int32_t a, int32_t b, int32_t sum) {
  return __dp4a(a, b, sum);
}

__device__ __forceinline__ uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selectors) {
  return __byte_perm(low, high, selectors);
}

__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void* row) {
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}

__device__ __forceinline__ void multiply_matrices(float (&sums)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

struct DeviceLimits {
  int64_t processors;
  int64_t shared_bytes;  // that a block may have
};

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  std::source_location place = std::source_location::current();  // of the launch, for its failure
};

// Shared memory a kernel may ask for without saying so first: 48 KiB, with its arrays of fixed
// size, which take less than 16 KiB.
constexpr size_t kPlainSharedBytes = 32 << 10;

// Lets a kernel ask for so much, once for the most it ever asks for.
inline cudaError_t allow_shared(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::unordered_map<const void*, size_t> allowed;
  if (bytes <= kPlainSharedBytes) return cudaSuccess;
  const std::lock_guard lock(mutex);
  size_t& most = allowed[kernel];
  if (bytes <= most) return cudaSuccess;
  const cudaError_t result = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (result == cudaSuccess) most = bytes;
  return result;
}

inline void expect_success(cudaError_t result, const std::source_location& place) {
  if (result == cudaSuccess) return;
  check_failed(cudaGetErrorString(result), place.file_name(), static_cast<int>(place.line()));
}

template <typename... Params>
void launch(void (*kernel)(Params...), LaunchShape shape, GpuStream stream,
            std::type_identity_t<Params>... arguments) {
  cudaError_t result = allow_shared(reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  if (result == cudaSuccess) {
    kernel<<<shape.grid, shape.block, shape.shared_bytes, static_cast<cudaStream_t>(stream)>>>(
        arguments...);
    result = cudaGetLastError();
  }
  expect_success(result, shape.place);
}

// Of the device that is current.
inline DeviceLimits device_limits(
    const std::source_location& place = std::source_location::current()) {
  int device = 0, processors = 0, shared_bytes = 0;
  expect_success(cudaGetDevice(&device), place);
  expect_success(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
                 place);
  expect_success(
      cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
      place);
  return {processors, shared_bytes};
}

// Of the device that is current.
template <typename... Params>
int64_t blocks_at_once(void (*kernel)(Params...), uint32_t threads, size_t shared_bytes,
                       const std::source_location& place = std::source_location::current()) {
  expect_success(allow_shared(reinterpret_cast<const void*>(kernel), shared_bytes), place);
  int device = 0, processors = 0, blocks = 0;
  expect_success(cudaGetDevice(&device), place);
  expect_success(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
                 place);
  expect_success(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                     &blocks, kernel, static_cast<int>(threads), shared_bytes),
                 place);
  return int64_t{processors} * blocks;
}

}  // namespace hearth::HEARTH_GPU
