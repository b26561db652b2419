// Rows of a cache as they are stored.
#pragma once

#include "gpu_kernels/common/numbers.h"

namespace hearth::HEARTH_GPU {

constexpr int kOctet = 8;  // values a thread reads at once

__host__ __device__ constexpr int kv_bytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

template <KvType kType>
__device__ __forceinline__ float load_kv(const unsigned char* row, int64_t i) {
  if constexpr (kType == KvType::kF32) {
    return reinterpret_cast<const float*>(row)[i];
  } else {
    return bfloat16_to_float(reinterpret_cast<const uint16_t*>(row)[i]);
  }
}

// Eight values, aligned to 16 bytes.
template <KvType kType>
__device__ __forceinline__ void load_kv_octet(const unsigned char* from, float (&out)[kOctet]) {
  if constexpr (kType == KvType::kF32) {
    const float4 low = reinterpret_cast<const float4*>(from)[0],
                 high = reinterpret_cast<const float4*>(from)[1];
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  } else {
    const uint4 words = *reinterpret_cast<const uint4*>(from);
    const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = bits_to_float(pairs[i] << 16);
      out[2 * i + 1] = bits_to_float(pairs[i] & 0xffff0000);
    }
  }
}

__device__ __forceinline__ void store_kv(float value, KvType type, void* row, int64_t i) {
  if (type == KvType::kF32) {
    static_cast<float*>(row)[i] = value;
  } else {
    static_cast<uint16_t*>(row)[i] = float_to_bfloat16(value);
  }
}

}  // namespace hearth::HEARTH_GPU
