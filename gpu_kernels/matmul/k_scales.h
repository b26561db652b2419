// The scales of Q4_K and Q5_K.
#pragma once

#include "gpu_kernels/common/numbers.h"

namespace hearth::HEARTH_GPU {

// Of group `group` of a block that begins with the half floats that scale the scales and the
// minimums, then twelve bytes: six bits for each, of groups 4 .. 7 the upper two on top of the
// bytes of groups 0 .. 3.
__device__ __forceinline__ void load_k_scale(const unsigned char* block, int group, float& scale,
                                             float& minimum) {
  const unsigned char* bytes = block + 4 + group % 4;
  const uint32_t first = bytes[0], second = bytes[4], third = bytes[8];
  const bool is_late = group >= 4;
  const uint32_t own = is_late ? (third & 15) | first >> 6 << 4 : first & 63;
  const uint32_t own_minimum = is_late ? third >> 4 | second >> 6 << 4 : second & 63;
  scale = half_to_float(load_pair(block)) * static_cast<float>(own);
  minimum = half_to_float(load_pair(block + 2)) * static_cast<float>(own_minimum);
}

}  // namespace hearth::HEARTH_GPU
