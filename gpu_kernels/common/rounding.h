// Activations to 8 bits, four values a thread.
#pragma once

#include "gpu_kernels/common/numbers.h"

namespace hearth::HEARTH_GPU {

constexpr int kQuadBlockLanes = 8;  // of 4 values each: those that share a scale
constexpr int kQuadHalfLanes = 4;   // and a sum
// Below this 127 / largest is not finite; such blocks count as zero, as on the CPU.
constexpr float kLeastMagnitude = 1e-36f;

// Rounds and stores the four values at `quad` of all rows. The eight lanes of a block call
// together; `lanes` names those that do, of the warp.
__device__ __forceinline__ void round_quad(const float4& x, int64_t quad, uint32_t lanes,
                                           const GpuRoundedRows& out) {
  float largest = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
  for (int distance = kQuadBlockLanes / 2; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(lanes, largest, distance));
  }
  if (largest < kLeastMagnitude) largest = 0;
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  const float scale = largest / 127.0f;
  const int32_t a = round_to_int(x.x * inverse), b = round_to_int(x.y * inverse);
  const int32_t c = round_to_int(x.z * inverse), d = round_to_int(x.w * inverse);
  int32_t sum = a + b + c + d;
  for (int distance = kQuadHalfLanes / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(lanes, sum, distance);
  }
  const uint32_t codes =
      (a & 255) | (b & 255) << 8 | (c & 255) << 16 | static_cast<uint32_t>(d & 255) << 24;
  reinterpret_cast<uint32_t*>(out.codes)[quad] = codes;
  if (quad % kQuadHalfLanes == 0) out.sums[quad / kQuadHalfLanes] = scale * static_cast<float>(sum);
  if (quad % kQuadBlockLanes == 0) out.scales[quad / kQuadBlockLanes] = scale;
}

}  // namespace hearth::HEARTH_GPU
