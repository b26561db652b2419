#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kBlockLanes = 8;  // of 4 values each
constexpr int kHalfLanes = 4;
// Below this 127 / largest is not finite; such blocks count as zero, as on the CPU.
constexpr float kLeastMagnitude = 1e-36f;

// A thread takes four values. Threads past the last block do that one again, so that whole warps shuffle.
__global__ void __launch_bounds__(kBlockThreads) quantize_kernel(GpuQuantizeParams p) {
  const int64_t quads = p.n * p.k / 4;
  const int64_t own = static_cast<int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
  const int64_t quad = own < quads ? own : quads - kBlockLanes + own % kBlockLanes;
  const float4 x = reinterpret_cast<const float4*>(p.x)[quad];

  float largest = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
  for (int distance = kBlockLanes / 2; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  if (largest < kLeastMagnitude) largest = 0;
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  const float scale = largest / 127.0f;
  const int32_t a = round_to_int(x.x * inverse), b = round_to_int(x.y * inverse);
  const int32_t c = round_to_int(x.z * inverse), d = round_to_int(x.w * inverse);
  int32_t sum = a + b + c + d;
  for (int distance = kHalfLanes / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  const uint32_t codes =
      (a & 255) | (b & 255) << 8 | (c & 255) << 16 | static_cast<uint32_t>(d & 255) << 24;
  reinterpret_cast<uint32_t*>(p.out.codes)[quad] = codes;
  if (quad % kHalfLanes == 0) p.out.sums[quad / kHalfLanes] = scale * static_cast<float>(sum);
  if (quad % kBlockLanes == 0) p.out.scales[quad / kBlockLanes] = scale;
}

}  // namespace

void quantize(const GpuQuantizeParams& params, GpuStream stream) {
  HEARTH_CHECK(params.k % 32 == 0);
  if (params.n * params.k == 0) return;
  const int64_t blocks = divide_up(params.n * params.k / 4, kBlockThreads);
  launch(quantize_kernel, {static_cast<uint32_t>(blocks), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
