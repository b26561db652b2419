// Products of few tokens with the experts they picked, all experts in one launch: as few.h has
// them, with blocks for each tile of picks. What a block multiplies it finds out itself, from picks
// and places that lie on the device.
#pragma once

#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/tile.h"

namespace hearth::HEARTH_GPU {

constexpr int kExpertRows = 2;  // of a warp: one of gate and one of up, or two of down
// Warps that one tile should have: a pick alone is to fill the device nearly.
constexpr int64_t kTileWarpsWanted = 4096;

struct ExpertHidden {
  static constexpr bool kIsPair = true;  // a warp's two rows are one of each of two matrices
  GpuExpertHiddenParams p;
  int32_t ways;

  __host__ __device__ const GpuPicks& picks() const { return p.picks; }
  __host__ __device__ const GpuExpertMatrices& matrix(int r) const {
    return r == 0 ? p.gate : p.up;
  }
  __device__ GpuMatmulParams input() const {
    GpuMatmulParams in = {};
    in.w.cols = p.gate.cols;
    in.x = p.x;
    in.xq = p.xq;
    return in;
  }
  __device__ int64_t input_row(int32_t pick) const { return pick / p.picks.used; }
  __device__ void store(int32_t pick, int64_t row, const float (&sums)[kExpertRows]) const {
    p.hidden[pick * p.gate.rows + row] = swiglu_value(sums[0], sums[1], p.clamp);
  }
};

struct ExpertOutput {
  static constexpr bool kIsPair = false;  // a warp's two rows follow one another
  GpuExpertOutputParams p;
  int32_t ways;

  __host__ __device__ const GpuPicks& picks() const { return p.picks; }
  __host__ __device__ const GpuExpertMatrices& matrix(int) const { return p.down; }
  __device__ GpuMatmulParams input() const {
    GpuMatmulParams in = {};
    in.w.cols = p.down.cols;
    in.x = p.hidden;
    in.xq = p.hidden_q;
    return in;
  }
  __device__ int64_t input_row(int32_t pick) const { return pick; }
  __device__ void store(int32_t pick, int64_t row, const float (&sums)[kExpertRows]) const {
    float* out = p.out + output_row(p, pick) * p.down.rows + row;
    out[0] = sums[0];
    if (row + 1 < p.down.rows) out[1] = sums[1];
  }
};

// The block's rows for a tile of at most kTokens picks.
template <typename F, typename Op, int kTokens>
__device__ __forceinline__ void multiply_tile(const Op& op, const Tile& tile, float* shared) {
  auto& partial = *reinterpret_cast<float(*)[kFewWarps][kExpertRows][kTokens]>(shared);
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int groups = kFewWarps / op.ways;  // of warps with the same rows
  constexpr int kStep = Op::kIsPair ? 1 : kExpertRows;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * groups * kStep;
  const int64_t own_row = first_row + warp / op.ways * kStep, last_row = op.matrix(0).rows - 1;

  // A row past the last is the last one again; it is not written.
  const GpuMatmulParams input = op.input();
  FewRows<F, kExpertRows> rows;
  rows.set_share(warp, op.ways, input.w.cols);
  for (int r = 0; r < kExpertRows; ++r) {
    const int64_t row = own_row + (Op::kIsPair ? 0 : r);
    rows.row[r] =
        op.matrix(r).data[tile.expert] + (row < last_row ? row : last_row) * rows.row_bytes;
  }
  if (own_row > last_row) rows.chunks = 0;
  int64_t x_rows[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    x_rows[t] = op.input_row(tile.pick_or_last(t));
  }

  float sums[kExpertRows][kTokens] = {};
  multiply_share<F, kTokens, kExpertRows>(input, rows, x_rows, sums);
  add_lanes<kTokens, kExpertRows>(sums, partial[warp]);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < groups * kTokens; i += kBlockThreads) {
    const int group = i % groups, t = i / groups;
    const int64_t row = first_row + group * kStep;
    if (row > last_row || t >= tile.count) continue;
    float whole[kExpertRows] = {};
    for (int w = group * op.ways; w < (group + 1) * op.ways; ++w) {
      for (int r = 0; r < kExpertRows; ++r) whole[r] += partial[w][r][t];
    }
    op.store(tile.pick(t), row, whole);
  }
}

// Tiles are mostly of one pick or two, and of eight at most: each size has its own loop. Their
// registers are limited so that nothing spills, not for more blocks: shared memory holds two of
// them where there are 100 KiB of it.
template <typename F, typename Op, bool kIsTiled>
__global__ void __launch_bounds__(kBlockThreads, kIsTiled ? 2 : 3) expert_kernel(Op op) {
  __shared__ float partial[kFewWarps * kExpertRows * (kIsTiled ? kGpuTilePicks : 1)];
  const Tile tile = find_tile(op.picks(), static_cast<int32_t>(blockIdx.y));
  if (tile.count == 0 || op.matrix(0).data[tile.expert] == nullptr) return;
  if constexpr (kIsTiled) {
    if (tile.count > 4) return multiply_tile<F, Op, kGpuTilePicks>(op, tile, partial);
    if (tile.count > 2) return multiply_tile<F, Op, 4>(op, tile, partial);
    if (tile.count == 2) return multiply_tile<F, Op, 2>(op, tile, partial);
  }
  multiply_tile<F, Op, 1>(op, tile, partial);
}

template <typename F, typename Op>
void launch_experts(Op op, GpuStream stream) {
  const GpuExpertMatrices& w = op.matrix(0);
  HEARTH_CHECK(w.cols % F::kBlock == 0);
  const int64_t chunks = divide_up(w.cols, F::kChunk);
  const int64_t warps = Op::kIsPair ? w.rows : divide_up(w.rows, kExpertRows);
  op.ways = 1;
  while (op.ways < kFewWarps && 2 * op.ways <= chunks && op.ways * warps < kTileWarpsWanted) {
    op.ways *= 2;
  }
  const GpuPicks& picks = op.picks();
  const bool is_tiled = picks.tiles.count != nullptr || (picks.picks == nullptr && picks.n > 1);
  const auto kernel = is_tiled ? expert_kernel<F, Op, true> : expert_kernel<F, Op, false>;
  const dim3 grid(static_cast<uint32_t>(divide_up(warps * op.ways, kFewWarps)),
                  static_cast<uint32_t>(tiles_max(picks)));
  launch(kernel, {grid, kBlockThreads, FewRows<F, kExpertRows>::kSharedBytes}, stream, op);
}

template <typename F>
void few_hidden_of_experts(const GpuExpertHiddenParams& params, GpuStream stream) {
  launch_experts<F>(ExpertHidden{params, 1}, stream);
}

template <typename F>
void few_output_of_experts(const GpuExpertOutputParams& params, GpuStream stream) {
  launch_experts<F>(ExpertOutput{params, 1}, stream);
}

}  // namespace hearth::HEARTH_GPU
