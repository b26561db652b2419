#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kWarps = kBlockThreads / kWarpLanes;

__device__ __forceinline__ int32_t tiles_of(const GpuTilePicksParams& p, int32_t picks) {
  return (picks + p.tile_size - 1) / p.tile_size;
}

// How many picks each expert with a matrix has; the threads of a block together.
__device__ __forceinline__ void count_picks(const GpuTilePicksParams& p, int32_t* counts) {
  for (int32_t e = static_cast<int32_t>(threadIdx.x); e < p.experts; e += kBlockThreads) {
    counts[e] = 0;
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.n * p.used; i += kBlockThreads) {
    const int32_t expert = p.picks[i];
    if (p.data[expert] != nullptr) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
}

// Where an expert's picks and tiles begin, from the counts of those before it; both sums of a warp.
__device__ __forceinline__ int2 begin_of(const GpuTilePicksParams& p, const int32_t* counts,
                                         int32_t expert) {
  int2 begin = make_int2(0, 0);
  for (int32_t e = static_cast<int32_t>(threadIdx.x) % kWarpLanes; e < expert; e += kWarpLanes) {
    begin.x += counts[e];
    begin.y += tiles_of(p, counts[e]);
  }
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    begin.x += __shfl_xor_sync(kAllLanes, begin.x, distance);
    begin.y += __shfl_xor_sync(kAllLanes, begin.y, distance);
  }
  return begin;
}

// The block's expert's picks to `order`, in their own order.
__device__ __forceinline__ void list_picks(const GpuTilePicksParams& p, int32_t expert,
                                           int32_t begin) {
  __shared__ int32_t found[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes,
            lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const auto picks = static_cast<int32_t>(p.n) * p.used;
  for (int32_t first = 0; first < picks; first += kBlockThreads) {
    const int32_t pick = first + static_cast<int32_t>(threadIdx.x);
    const bool is_own = pick < picks && p.picks[pick] == expert;
    const uint32_t own_lanes = __ballot_sync(kAllLanes, is_own ? 1 : 0);
    if (lane == 0) found[warp] = count_bits(own_lanes);
    __syncthreads();
    int32_t before = begin, all = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before += found[w];
      all += found[w];
    }
    if (is_own) p.tiles.order[before + count_bits(own_lanes & ((1u << lane) - 1))] = pick;
    begin += all;
    __syncthreads();
  }
}

// A block takes one expert. Every block counts all picks: they are few, and none has to wait for
// others.
__global__ void __launch_bounds__(kBlockThreads) tile_picks_kernel(GpuTilePicksParams p) {
  int32_t* counts = dynamic_shared<int32_t>();
  const auto expert = static_cast<int32_t>(blockIdx.x);
  count_picks(p, counts);
  const int32_t own = counts[expert];
  const bool is_last = expert == p.experts - 1;
  if (own == 0 && !is_last) return;
  const int2 begin = begin_of(p, counts, expert);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < tiles_of(p, own); i += kBlockThreads) {
    p.tiles.experts[begin.y + i] = expert;
    p.tiles.begins[begin.y + i] = begin.x + i * p.tile_size;
  }
  if (is_last && threadIdx.x == 0) {
    *p.tiles.count = begin.y + tiles_of(p, own);
    p.tiles.begins[begin.y + tiles_of(p, own)] = begin.x + own;
  }
  if (own > 0) list_picks(p, expert, begin.x);
}

}  // namespace

void tile_picks(const GpuTilePicksParams& params, GpuStream stream) {
  if (params.experts == 0) return;
  launch(tile_picks_kernel,
         {static_cast<uint32_t>(params.experts), kBlockThreads,
          static_cast<size_t>(params.experts) * sizeof(int32_t)},
         stream, params);
}

}  // namespace hearth::HEARTH_GPU
