#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/rounding.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

// A row's streams are read by one block: many threads, for many reads on their way.
constexpr uint32_t kThreads = 1024;
constexpr int kWarps = kThreads / kWarpLanes;

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float dot(const float4& x, float sum) {
  return fmaf(x.w, x.w, fmaf(x.z, x.z, fmaf(x.y, x.y, fmaf(x.x, x.x, sum))));
}

__device__ __forceinline__ float factor_of(const GpuEnterHyperParams& p, float squares) {
  return 1.0f / sqrtf(squares / static_cast<float>(p.stream_count * p.dim) + p.rms_eps);
}

// 1 / rms of the flattened streams of a row.
__device__ __forceinline__ float streams_factor(const GpuEnterHyperParams& p, const float* streams,
                                                float* sums) {
  const int64_t width = p.stream_count * p.dim;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width / 4; i += kThreads) {
    sum = dot(reinterpret_cast<const float4*>(streams)[i], sum);
  }
  return factor_of(p, block_sum<kThreads>(sum, sums));
}

// The `count` mixes of a row and behind them its squares, each from the parts by a warp.
__device__ __forceinline__ void sum_parts(const GpuEnterHyperParams& p, const float* parts,
                                          int count, float* mixes) {
  const int64_t splits = divide_up(p.stream_count * p.dim, kGpuMixColumns);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int i = static_cast<int>(threadIdx.x) / kWarpLanes; i <= count; i += kWarps) {
    float sum = 0;
    for (int64_t split = lane; split < splits; split += kWarpLanes) {
      sum += parts[split * (count + 1) + i];
    }
    sum = warp_sum(sum);
    if (lane == 0) mixes[i] = sum;
  }
  __syncthreads();
}

// A square matrix that a warp balances, and the next state of it: what one lane writes others still
// read in the old one.
struct Balanced {
  float states[2][kGpuStreamsMax * kGpuStreamsMax];
};

// Divides every element by eps and the sum of its row or column.
__device__ __forceinline__ void scale_lines(Balanced& m, int& now, int32_t size, bool columns,
                                            float eps) {
  const float* from = m.states[now];
  float* to = m.states[1 - now];
  for (int i = static_cast<int>(threadIdx.x); i < size * size; i += kWarpLanes) {
    const int begin = columns ? i % size : i / size * size, step = columns ? size : 1;
    float sum = eps;
    for (int32_t j = 0; j < size; ++j) sum += from[begin + j * step];
    to[i] = from[i] / sum;
  }
  now = 1 - now;
  __syncwarp();
}

// The same matrix of four streams in registers: element i in lanes i and 16 + i.
__device__ __forceinline__ float balance_four(float element, int32_t iterations, float eps) {
  const auto scale = [&](int distance) {
    float sum = element + __shfl_xor_sync(kAllLanes, element, distance);
    sum += __shfl_xor_sync(kAllLanes, sum, 2 * distance);
    element /= sum + eps;
  };
  scale(4);  // columns
  for (int32_t i = 1; i < iterations; ++i) {
    scale(1);
    scale(4);
  }
  return element;
}

// The coefficients of row `row` that leaving takes, by the first warp.
__device__ __forceinline__ void balance(const GpuEnterHyperParams& p, const float* mixes,
                                        float factor, int64_t row, Balanced& m) {
  const int32_t size = p.stream_count;
  const int lane = static_cast<int>(threadIdx.x);
  auto mix = [&](int i, int part) { return mixes[i] * factor * p.scale[part] + p.base[i]; };
  float* raw = m.states[0];
  for (int i = lane; i < size * size; i += kWarpLanes) raw[i] = mix(2 * size + i, 2);
  __syncwarp();
  for (int i = lane; i < size * size; i += kWarpLanes) {
    const float* line = raw + i / size * size;
    float largest = line[0], sum = 0;
    for (int32_t j = 1; j < size; ++j) largest = fmaxf(largest, line[j]);
    for (int32_t j = 0; j < size; ++j) sum += expf(line[j] - largest);
    m.states[1][i] = expf(raw[i] - largest) / sum + p.hyper_eps;
  }
  __syncwarp();
  int now = 1;
  if (size == 4) {
    const float element = balance_four(m.states[1][lane % 16], p.sinkhorn_iterations, p.hyper_eps);
    __syncwarp();
    if (lane < 16) m.states[1][lane] = element;
    __syncwarp();
  } else {
    scale_lines(m, now, size, true, p.hyper_eps);
    for (int32_t i = 1; i < p.sinkhorn_iterations; ++i) {
      scale_lines(m, now, size, false, p.hyper_eps);
      scale_lines(m, now, size, true, p.hyper_eps);
    }
  }
  float* out = p.coefficients + row * size * (size + 1);
  for (int i = lane; i < size * size; i += kWarpLanes) {
    out[i % size * (size + 1) + i / size] = m.states[now][i];
  }
  for (int k = lane; k < size; k += kWarpLanes) {
    out[k * (size + 1) + size] = 2.0f * sigmoid(mix(size + k, 1));
  }
}

template <int kMost>
__device__ __forceinline__ float4 mix_quad(const GpuEnterHyperParams& p, const float* streams,
                                           const float (&pre)[kMost], int64_t quad) {
  float4 sum = make_float4(0, 0, 0, 0);
  HEARTH_UNROLL
  for (int s = 0; s < kMost; ++s) {
    if (s >= p.stream_count) break;
    const float4 x = reinterpret_cast<const float4*>(streams + s * p.dim)[quad];
    sum = make_float4(fmaf(pre[s], x.x, sum.x), fmaf(pre[s], x.y, sum.y), fmaf(pre[s], x.z, sum.z),
                      fmaf(pre[s], x.w, sum.w));
  }
  return sum;
}

// The input of the sub-layer.
template <int kMost>
__device__ __forceinline__ void mix_row(const GpuEnterHyperParams& p, const float* streams,
                                        const float* mixes, float factor, int64_t row,
                                        float* sums) {
  float pre[kMost];
  HEARTH_UNROLL
  for (int s = 0; s < kMost; ++s) {
    pre[s] = s < p.stream_count ? sigmoid(mixes[s] * factor * p.scale[0] + p.base[s]) + p.hyper_eps
                                : 0.0f;
  }
  float4* mixed = dynamic_shared<float4>();  // [dim / 4]; a thread reads what it wrote itself
  float sum = 0;
  for (int64_t i = threadIdx.x; i < p.dim / 4; i += kThreads) {
    mixed[i] = mix_quad<kMost>(p, streams, pre, i);
    sum = dot(mixed[i], sum);
  }
  const float norm =
      1.0f / sqrtf(block_sum<kThreads>(sum, sums) / static_cast<float>(p.dim) + p.rms_eps);
  for (int64_t i = threadIdx.x; i < p.dim / 4; i += kThreads) {
    const float4 x = mixed[i], gain = reinterpret_cast<const float4*>(p.gain)[i];
    const float4 y = make_float4(x.x * norm * gain.x, x.y * norm * gain.y, x.z * norm * gain.z,
                                 x.w * norm * gain.w);
    const int64_t quad = row * (p.dim / 4) + i;
    reinterpret_cast<float4*>(p.x)[quad] = y;
    // The lanes of a block of 32 are all there or all not.
    const uint32_t lanes = 0xffu << (threadIdx.x % kWarpLanes / kQuadBlockLanes * kQuadBlockLanes);
    if (p.xq.codes != nullptr) round_quad(y, quad, lanes, p.xq);
  }
}

// Two blocks take a row: one mixes its streams while the other balances its matrix, which is long
// chains of few numbers. Of the head there is only the first.
template <int kMost>
__global__ void __launch_bounds__(kThreads) enter_kernel(GpuEnterHyperParams p) {
  __shared__ float sums[2][kWarps];
  __shared__ float summed[kMost * (2 + kMost) + 1];
  __shared__ Balanced balanced;
  const bool is_head = p.coefficients == nullptr;
  const int64_t row = is_head ? blockIdx.x : blockIdx.x / 2;
  const int64_t from = p.rows != nullptr ? p.rows[row] : row;
  const float* streams = p.streams + from * p.stream_count * p.dim;
  const int count = p.stream_count * (is_head ? 1 : 2 + p.stream_count);
  const float* mixes = p.mixes + from * count;
  float factor = 0;
  if (p.parts != nullptr) {
    const int64_t splits = divide_up(p.stream_count * p.dim, kGpuMixColumns);
    sum_parts(p, p.parts + from * splits * (count + 1), count, summed);
    mixes = summed;
    factor = factor_of(p, summed[count]);
  } else {
    factor = streams_factor(p, streams, sums[0]);
  }
  if (is_head || blockIdx.x % 2 == 0) {
    mix_row<kMost>(p, streams, mixes, factor, row, sums[1]);
  } else if (threadIdx.x < kWarpLanes) {
    balance(p, mixes, factor, row, balanced);
  }
}

}  // namespace

void enter_hyper(const GpuEnterHyperParams& params, GpuStream stream) {
  if (params.n == 0) return;
  HEARTH_CHECK(params.stream_count <= kGpuStreamsMax);
  HEARTH_CHECK(params.dim % (params.xq.codes != nullptr ? 32 : 4) == 0);
  const int64_t blocks = params.coefficients != nullptr ? 2 * params.n : params.n;
  const auto kernel = params.stream_count <= 4 ? enter_kernel<4> : enter_kernel<kGpuStreamsMax>;
  launch(kernel,
         {static_cast<uint32_t>(blocks), kThreads, static_cast<size_t>(params.dim) * sizeof(float)},
         stream, params);
}

}  // namespace hearth::HEARTH_GPU
