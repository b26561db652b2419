#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kWarps = 4;
constexpr int32_t kNobody = 0x7fffffff;

// sqrt(softplus(x)), softplus(x) = log(1 + e^x) without overflow.
__device__ __forceinline__ float score(float x) { return sqrtf(x > 20 ? x : log1pf(expf(x))); }

// An expert by its biased score. Larger scores come first, of equal ones the lower index.
struct Choice {
  float value;
  int32_t expert;
};
__device__ __forceinline__ bool is_before(const Choice& a, const Choice& b) {
  return a.value > b.value || (a.value == b.value && a.expert < b.expert);
}

// The first of those behind `last`, in every lane.
__device__ __forceinline__ Choice next_choice(const float* biased, int32_t experts,
                                              const Choice& last) {
  Choice best = {bits_to_float(0xff800000), kNobody};
  for (int32_t e = static_cast<int32_t>(threadIdx.x) % kWarpLanes; e < experts; e += kWarpLanes) {
    const Choice own = {biased[e], e};
    if (is_before(last, own) && is_before(own, best)) best = own;
  }
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    const Choice other = {__shfl_xor_sync(kAllLanes, best.value, distance),
                          __shfl_xor_sync(kAllLanes, best.expert, distance)};
    if (is_before(other, best)) best = other;
  }
  return best;
}

// Picks the experts of a row, by its warp, of which `biased` [experts] is the scratch.
__device__ __forceinline__ void pick_best(const GpuRouteParams& p, const float* logits,
                                          float* biased, int32_t* picks) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int32_t e = lane; e < p.experts; e += kWarpLanes) {
    const float value = score(logits[e]) + p.bias[e];
    biased[e] = value == value ? value : bits_to_float(0xff800000);
  }
  __syncwarp();
  Choice last = {bits_to_float(0x7f800000), -1};
  for (int32_t k = 0; k < p.used; ++k) {
    last = next_choice(biased, p.experts, last);
    if (lane == 0) picks[k] = last.expert;
  }
}

// A warp takes one row.
__global__ void __launch_bounds__(kWarps* kWarpLanes) route_kernel(GpuRouteParams p) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes,
            lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= p.n) return;
  const float* logits = p.logits + row * p.experts;
  int32_t* picks = p.picks + row * p.used;
  float* weights = p.weights + row * (p.used + 1);
  if (p.hash_table != nullptr) {
    const int32_t* listed = p.hash_table + static_cast<int64_t>(p.tokens[row]) * p.used;
    for (int32_t k = lane; k < p.used; k += kWarpLanes) picks[k] = listed[k];
  } else {
    pick_best(p, logits, dynamic_shared<float>() + static_cast<int64_t>(warp) * p.experts, picks);
  }
  __syncwarp();
  float sum = 0;
  for (int32_t k = 0; k < p.used; ++k) sum += score(logits[picks[k]]);
  const float scale = p.norm ? p.scale / sum : p.scale;
  for (int32_t k = lane; k < p.used; k += kWarpLanes) weights[k] = score(logits[picks[k]]) * scale;
  if (lane == 0) weights[p.used] = 1;
}

}  // namespace

void route(const GpuRouteParams& params, GpuStream stream) {
  if (params.n == 0) return;
  HEARTH_CHECK(params.used <= params.experts);
  launch(route_kernel,
         {static_cast<uint32_t>(divide_up(params.n, kWarps)), kWarps * kWarpLanes,
          static_cast<size_t>(kWarps) * params.experts * sizeof(float)},
         stream, params);
}

}  // namespace hearth::HEARTH_GPU
