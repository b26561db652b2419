// What tensor cores give at best, by the instruction that products of matrices use: each warp has
// enough sums of its own that none waits for the one before it.
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kRowTiles = kGpuTileRows / 16, kColumnTiles = kGpuTileColumns / 8;
constexpr int kRowWords = kGpuTileDepth / 2;
static_assert(kGpuTileDepth == 16 && kGpuTileWarps * kWarpLanes == kBlockThreads);

__global__ void __launch_bounds__(kBlockThreads, 2)
    multiply_tiles_kernel(GpuMultiplyTilesParams p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int own_word = lane / 4 * kRowWords + lane % 4;
  const uint32_t* a_words = reinterpret_cast<const uint32_t*>(p.a) + own_word;
  const uint32_t* b_words = reinterpret_cast<const uint32_t*>(p.b) + own_word;
  uint32_t a[kRowTiles][4], b[kColumnTiles][2];
  HEARTH_UNROLL
  for (int r = 0; r < kRowTiles; ++r) {
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) a[r][i] = a_words[(16 * r + i % 2 * 8) * kRowWords + i / 2 * 4];
  }
  HEARTH_UNROLL
  for (int c = 0; c < kColumnTiles; ++c) {
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) b[c][i] = b_words[8 * c * kRowWords + 4 * i];
  }

  float sums[kRowTiles][kColumnTiles][4] = {};
  for (int round = 0; round < p.rounds; ++round) {
    HEARTH_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      HEARTH_UNROLL
      for (int c = 0; c < kColumnTiles; ++c) multiply_matrices(sums[r][c], a[r], b[c][0], b[c][1]);
    }
  }

  float sum = 0;
  HEARTH_UNROLL
  for (int i = 0; i < kRowTiles * kColumnTiles * 4; ++i) {
    sum += sums[i / 4 / kColumnTiles][i / 4 % kColumnTiles][i % 4];
  }
  __shared__ float warp_sums[kGpuTileWarps];
  sum = block_sum<kBlockThreads>(sum, warp_sums);
  if (threadIdx.x == 0) p.sums[blockIdx.x] = sum;
}

}  // namespace

int64_t multiply_tiles(const GpuMultiplyTilesParams& params, GpuStream stream) {
  if (params.blocks == 0) return 0;
  launch(multiply_tiles_kernel, {static_cast<uint32_t>(params.blocks), kBlockThreads}, stream,
         params);
  const int64_t warps = params.blocks * kGpuTileWarps;
  return 2 * warps * params.rounds * kGpuTileRows * kGpuTileColumns * kGpuTileDepth;
}

}  // namespace hearth::HEARTH_GPU
