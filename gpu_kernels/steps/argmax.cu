#include "base/softmax.h"
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A row is read by one block: many threads, for many reads on their way.
constexpr uint32_t kThreads = 1024;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr float kLargest = 3.402823466e38f;

// Comparisons need an order, which NaN does not have.
__device__ __forceinline__ float finite(float x) {
  return x == x ? fminf(fmaxf(x, -kLargest), kLargest) : -kLargest;
}

struct Best {
  float value;
  int32_t token;

  __device__ __forceinline__ void meet(float other, int32_t other_token) {
    if (other > value || (other == value && other_token < token)) {
      value = other;
      token = other_token;
    }
  }
};

// Calls visit(logit, token) for the row's logits, four reads of a thread at once where they lie so.
template <typename Visit>
__device__ __forceinline__ void for_logits(const float* row, int64_t vocab, const Visit& visit) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  if (vocab % 4 != 0) {
    for (int32_t i = lane; i < vocab; i += kThreads) visit(finite(row[i]), i);
    return;
  }
  for (int32_t i = 4 * lane; i < vocab; i += 4 * kThreads) {
    const float4 x = *reinterpret_cast<const float4*>(row + i);
    visit(finite(x.x), i);
    visit(finite(x.y), i + 1);
    visit(finite(x.z), i + 2);
    visit(finite(x.w), i + 3);
  }
}

// The best of the block, in every thread.
__device__ __forceinline__ Best block_best(Best best) {
  __shared__ Best bests[kWarps];
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, best.value, distance);
    const int32_t token = __shfl_xor_sync(kAllLanes, best.token, distance);
    best.meet(value, token);
  }
  if (threadIdx.x % kWarpLanes == 0) bests[threadIdx.x / kWarpLanes] = best;
  __syncthreads();
  best = bests[0];
  for (int i = 1; i < kWarps; ++i) best.meet(bests[i].value, bests[i].token);
  return best;
}

// exp t of t <= 0, as base/softmax.h has it.
__device__ __forceinline__ float exp_below_zero(float t) {
  if (!(t >= kExpLowest)) return 0;
  const float k = rintf(t * kPerLn2);
  const float r = fmaf(-k, kLn2Low, fmaf(-k, kLn2High, t));
  float sum = kExp7;
  sum = fmaf(sum, r, kExp6);
  sum = fmaf(sum, r, kExp5);
  sum = fmaf(sum, r, kExp4);
  sum = fmaf(sum, r, kExp3);
  sum = fmaf(sum, r, kExp2);
  sum = fmaf(sum, r, 1.0f);
  sum = fmaf(sum, r, 1.0f);
  return sum * power_of_two(static_cast<uint32_t>(127 + static_cast<int32_t>(k)));
}

// Of each kSoftmaxBlock tokens, which kSoftmaxLanes threads share.
__device__ __forceinline__ void sum_blocks(const float* row, const GpuArgmaxParams& p,
                                           float largest, float* sums) {
  const int lane = threadIdx.x % kSoftmaxLanes, group = threadIdx.x / kSoftmaxLanes;
  const int64_t blocks = divide_up(p.vocab, kSoftmaxBlock);
  for (int64_t first = 0; first < blocks; first += kThreads / kSoftmaxLanes) {
    const int64_t block = first + group;
    float sum = 0;
    HEARTH_UNROLL
    for (int i = lane; i < kSoftmaxBlock; i += kSoftmaxLanes) {
      const int64_t token = block * kSoftmaxBlock + i;
      if (token < p.vocab) sum += exp_below_zero((finite(row[token]) - largest) * p.scale);
    }
    for (int distance = kSoftmaxLanes / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    if (lane == 0 && block < blocks) sums[block] = sum;
  }
}

// A block takes one row.
__global__ void __launch_bounds__(kThreads) argmax_kernel(GpuArgmaxParams p) {
  const float* row = p.logits + blockIdx.x * p.vocab;
  Best best = {-kLargest, 0x7fffffff};
  for_logits(row, p.vocab, [&](float logit, int32_t token) { best.meet(logit, token); });
  best = block_best(best);
  if (threadIdx.x == 0) {
    p.tokens[blockIdx.x] = best.token;
    if (p.largest != nullptr) p.largest[blockIdx.x] = best.value;
  }
  if (p.sums == nullptr) return;
  sum_blocks(row, p, best.value, p.sums + blockIdx.x * divide_up(p.vocab, kSoftmaxBlock));
}

}  // namespace

void argmax(const GpuArgmaxParams& params, GpuStream stream) {
  if (params.n == 0) return;
  launch(argmax_kernel, {static_cast<uint32_t>(params.n), kThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
