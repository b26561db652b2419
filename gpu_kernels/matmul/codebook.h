// The codebooks of the IQ2 and IQ3 formats: in the device's memory, and while a kernel runs a copy
// at the beginning of its block's shared memory, where lanes that want different rows wait for each
// other least.
#pragma once

#include "base/codebooks.h"
#include "gpu_kernels/matmul/codes.h"

namespace hearth::HEARTH_GPU {

template <typename T, int kCount>
struct alignas(16) Codebook {
  T rows[kCount];
};

template <typename T, int kCount>
constexpr Codebook<T, kCount> copy_codebook(const T (&rows)[kCount]) {
  Codebook<T, kCount> copy = {};
  for (int i = 0; i < kCount; ++i) copy.rows[i] = rows[i];
  return copy;
}

// By all threads of the block, which meet afterwards.
template <typename T, int kCount>
__device__ __forceinline__ void share_codebook(const Codebook<T, kCount>& codebook) {
  const auto* from = reinterpret_cast<const uint4*>(codebook.rows);
  for (uint32_t i = threadIdx.x; i < sizeof(codebook) / sizeof(uint4); i += blockDim.x) {
    dynamic_shared<uint4>()[i] = from[i];
  }
}

template <typename T>
__device__ __forceinline__ T shared_row(uint32_t place) {
  return dynamic_shared<T>()[place];
}

// Seven signs and an eighth that makes the number of negative weights even.
__device__ __forceinline__ uint32_t eight_signs(uint32_t seven) {
  return seven | static_cast<uint32_t>(__popc(seven) & 1) << 7;
}

// Eight magnitudes with their signs.
__device__ __forceinline__ void put_row(uint2 row, uint32_t signs, uint32_t* codes) {
  codes[0] = negate_where(row.x, signs);
  codes[1] = negate_where(row.y, signs >> 4);
}

}  // namespace hearth::HEARTH_GPU
