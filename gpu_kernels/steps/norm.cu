#include "gpu_kernels/attention/kv_rows.h"
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/rounding.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A block takes one row.
__global__ void __launch_bounds__(kBlockThreads) rms_norm_kernel(GpuRmsNormParams p) {
  const float* x = p.x + blockIdx.x * p.k;
  float* y = p.y + blockIdx.x * p.k;
  __shared__ float sums[kBlockThreads / kWarpLanes];
  float sum = 0;
  for (int64_t i = threadIdx.x; i < p.k; i += kBlockThreads) sum = fmaf(x[i], x[i], sum);
  const float factor =
      1.0f / sqrtf(block_sum<kBlockThreads>(sum, sums) / static_cast<float>(p.k) + p.eps);
  if (p.yq.codes == nullptr) {
    for (int64_t i = threadIdx.x; i < p.k; i += kBlockThreads) {
      const float value = x[i] * factor;
      y[i] = p.gain != nullptr ? value * p.gain[i] : value;
    }
    return;
  }
  for (int64_t i = threadIdx.x; i < p.k / 4; i += kBlockThreads) {
    float4 value = reinterpret_cast<const float4*>(x)[i];
    float4 gain = make_float4(1, 1, 1, 1);
    if (p.gain != nullptr) gain = reinterpret_cast<const float4*>(p.gain)[i];
    value = make_float4(value.x * factor * gain.x, value.y * factor * gain.y,
                        value.z * factor * gain.z, value.w * factor * gain.w);
    reinterpret_cast<float4*>(y)[i] = value;
    // The lanes of a block of 32 are all there or all not.
    const uint32_t lanes = 0xffu << (threadIdx.x % kWarpLanes / kQuadBlockLanes * kQuadBlockLanes);
    round_quad(value, blockIdx.x * (p.k / 4) + i, lanes, p.yq);
  }
}

constexpr uint32_t kHeadThreads = 128;
constexpr int kHeadPairs = kGpuHeadDimMax / 2 / kHeadThreads;  // of a thread

// A block takes one head of one row.
__global__ void __launch_bounds__(kHeadThreads) norm_heads_kernel(GpuNormHeadsParams p) {
  __shared__ float sums[kHeadThreads / kWarpLanes];
  const int64_t row = blockIdx.x / p.heads;
  float2* x = reinterpret_cast<float2*>(p.x + static_cast<int64_t>(blockIdx.x) * p.dim);
  const int32_t pairs = p.dim / 2, turned = p.rope_dim / 2;
  float2 values[kHeadPairs];
  float sum = 0;
  HEARTH_UNROLL
  for (int j = 0; j < kHeadPairs; ++j) {
    const int32_t i = static_cast<int32_t>(threadIdx.x + j * kHeadThreads);
    values[j] = i < pairs ? x[i] : make_float2(0, 0);
    sum = fmaf(values[j].x, values[j].x, fmaf(values[j].y, values[j].y, sum));
  }
  const float factor =
      1.0f / sqrtf(block_sum<kHeadThreads>(sum, sums) / static_cast<float>(p.dim) + p.eps);
  HEARTH_UNROLL
  for (int j = 0; j < kHeadPairs; ++j) {
    const int32_t i = static_cast<int32_t>(threadIdx.x + j * kHeadThreads);
    if (i >= pairs) break;
    float2 value = make_float2(values[j].x * factor, values[j].y * factor);
    if (p.gain != nullptr)
      value = make_float2(value.x * p.gain[2 * i], value.y * p.gain[2 * i + 1]);
    if (const int32_t angle = i - (pairs - turned); angle >= 0) {
      const float cosine = p.cosines[row * turned + angle], sine = p.sines[row * turned + angle];
      value = make_float2(value.x * cosine - value.y * sine, value.x * sine + value.y * cosine);
    }
    x[i] = value;
    if (p.caches == nullptr) continue;
    const GpuRow at = p.rows[row];
    const GpuSequenceCache& cache = p.caches[at.sequence];
    const int64_t place = at.position % cache.window_slots * p.dim + 2 * i;
    store_kv(value.x, p.kv_type, cache.window, place);
    store_kv(value.y, p.kv_type, cache.window, place + 1);
  }
}

}  // namespace

void rms_norm(const GpuRmsNormParams& params, GpuStream stream) {
  HEARTH_CHECK(params.yq.codes == nullptr || params.k % 32 == 0);
  if (params.n == 0) return;
  launch(rms_norm_kernel, {static_cast<uint32_t>(params.n), kBlockThreads}, stream, params);
}

void norm_heads(const GpuNormHeadsParams& params, GpuStream stream) {
  HEARTH_CHECK(params.dim % 2 == 0 && params.dim <= kGpuHeadDimMax);
  HEARTH_CHECK(params.caches == nullptr || params.heads == 1);
  if (params.n * params.heads == 0) return;
  launch(norm_heads_kernel, {static_cast<uint32_t>(params.n * params.heads), kHeadThreads}, stream,
         params);
}

}  // namespace hearth::HEARTH_GPU
