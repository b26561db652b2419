// Products of a hyper-connection's few rows with streams, which are long: a block takes some
// columns of all rows, so that the whole device reads.
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kRows = 4;       // of a warp at once
constexpr int kLaneQuads = 2;  // columns of a lane are such quads
constexpr int kWarps = kBlockThreads / kWarpLanes;
static_assert(kGpuMixColumns == 4 * kLaneQuads * kWarpLanes);

// A lane's columns of a row of `width`, zeros past its end.
__device__ __forceinline__ void load_quads(const float* row, int64_t width,
                                           float4 (&out)[kLaneQuads]) {
  HEARTH_UNROLL
  for (int i = 0; i < kLaneQuads; ++i) {
    const int64_t column =
        int64_t{blockIdx.x} * kGpuMixColumns + 4 * (threadIdx.x % kWarpLanes + i * kWarpLanes);
    out[i] =
        column < width ? *reinterpret_cast<const float4*>(row + column) : make_float4(0, 0, 0, 0);
  }
}

// The row behind the last one of fn is the streams themselves: that gives their sum of squares.
__global__ void __launch_bounds__(kBlockThreads) project_kernel(GpuProjectStreamsParams p) {
  const int64_t from = p.rows != nullptr ? p.rows[blockIdx.y] : blockIdx.y;
  const float* streams = p.streams + from * p.fn.cols;
  const auto* fn = reinterpret_cast<const float*>(p.fn.data);
  const int32_t mixes = static_cast<int32_t>(p.fn.rows);
  float* parts = p.parts + (from * gridDim.x + blockIdx.x) * (mixes + 1);
  float4 x[kLaneQuads];
  load_quads(streams, p.fn.cols, x);
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  for (int32_t first = warp * kRows; first <= mixes; first += kWarps * kRows) {
    float4 w[kRows][kLaneQuads];
    HEARTH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int32_t row = first + r;
      load_quads(row < mixes ? fn + row * p.fn.cols : streams, p.fn.cols, w[r]);
    }
    float sums[kRows] = {};
    HEARTH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      HEARTH_UNROLL
      for (int i = 0; i < kLaneQuads; ++i) {
        sums[r] = fmaf(w[r][i].x, x[i].x, fmaf(w[r][i].y, x[i].y, sums[r]));
        sums[r] = fmaf(w[r][i].z, x[i].z, fmaf(w[r][i].w, x[i].w, sums[r]));
      }
    }
    const float sum = sum_lanes(sums);
    constexpr int kLanes = kWarpLanes / kRows;
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, row = first + lane / kLanes;
    if (lane % kLanes == 0 && row <= mixes) parts[row] = sum;
  }
}

}  // namespace

void project_streams(const GpuProjectStreamsParams& params, GpuStream stream) {
  HEARTH_CHECK(params.fn.type == TensorType::kF32 && params.fn.cols % 4 == 0);
  HEARTH_CHECK(params.n <= 65535);
  if (params.n == 0) return;
  const dim3 grid(static_cast<uint32_t>(divide_up(params.fn.cols, kGpuMixColumns)),
                  static_cast<uint32_t>(params.n));
  launch(project_kernel, {grid, kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
