// Products of many tokens with the experts they picked, all experts in one launch, on tensor cores:
// as many.h has them, the tokens of a tile being the picks of one expert.
#pragma once

#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/matmul/tile.h"

namespace hearth::HEARTH_GPU {

// Of each sixteen rows of a tile the first eight are gate's and the others the same of up: both
// sums of a hidden value meet in one thread.
struct ManyHidden {
  static constexpr int kRows = kManyRows / 2;  // of each matrix
  struct Part {
    int32_t first_row;
    Tile tile;
    const unsigned char *gate, *up;
  };
  GpuExpertHiddenParams p;
  int64_t row_bytes;

  template <int kTokens>
  __device__ __forceinline__ bool find(Part& part) const {
    part.first_row = static_cast<int32_t>(blockIdx.y) * kRows;
    part.tile = find_tile(p.picks, static_cast<int32_t>(blockIdx.x));
    if (part.tile.count == 0) return false;
    part.gate = p.gate.data[part.tile.expert];
    part.up = p.up.data[part.tile.expert];
    return part.gate != nullptr;
  }
  __host__ __device__ int64_t cols() const { return p.gate.cols; }
  __host__ __device__ const uint16_t* bfloat16s() const { return p.bfloat16s; }
  __device__ __forceinline__ const unsigned char* stored_row(const Part& part, int row) const {
    const int64_t wanted = part.first_row + row / 16 * 8 + row % 8;
    const int64_t there = wanted < p.gate.rows ? wanted : p.gate.rows - 1;
    return (row / 8 % 2 == 0 ? part.gate : part.up) + there * row_bytes;
  }
  __device__ __forceinline__ int32_t x_row(const Part& part, int token) const {
    return part.tile.pick_or_last(token) / p.picks.used;
  }
  __device__ __forceinline__ uint16_t* result(const Part& part, int token) const {
    if (token >= part.tile.count) return nullptr;
    return p.hidden_bfloat16s + part.tile.pick(token) * p.gate.rows;
  }
  __device__ __forceinline__ void store(uint16_t* hidden, const Part& part, int row, float gate,
                                        float up) const {
    const int64_t own = part.first_row + row / 16 * 8 + row % 8;
    if (own < p.gate.rows) hidden[own] = float_to_bfloat16(swiglu_value(gate, up, p.clamp));
  }
};

struct ManyOutput {
  struct Part {
    int32_t first_row;
    Tile tile;
    const unsigned char* down;
  };
  GpuExpertOutputParams p;
  int64_t row_bytes;

  template <int kTokens>
  __device__ __forceinline__ bool find(Part& part) const {
    part.first_row = static_cast<int32_t>(blockIdx.y) * kManyRows;
    part.tile = find_tile(p.picks, static_cast<int32_t>(blockIdx.x));
    if (part.tile.count == 0) return false;
    part.down = p.down.data[part.tile.expert];
    return part.down != nullptr;
  }
  __host__ __device__ int64_t cols() const { return p.down.cols; }
  __host__ __device__ const uint16_t* bfloat16s() const { return p.hidden_bfloat16s; }
  __device__ __forceinline__ const unsigned char* stored_row(const Part& part, int row) const {
    const int64_t wanted = part.first_row + row;
    return part.down + (wanted < p.down.rows ? wanted : p.down.rows - 1) * row_bytes;
  }
  __device__ __forceinline__ int32_t x_row(const Part& part, int token) const {
    return part.tile.pick_or_last(token);
  }
  __device__ __forceinline__ float* result(const Part& part, int token) const {
    if (token >= part.tile.count) return nullptr;
    return p.out + output_row(p, part.tile.pick(token)) * p.down.rows;
  }
  __device__ __forceinline__ void store(float* out, const Part& part, int row, float low,
                                        float high) const {
    const int64_t own = part.first_row + row;
    if (own < p.down.rows) out[own] = low;
    if (own + 8 < p.down.rows) out[own + 8] = high;
  }
};

template <typename F, typename Op>
void launch_many_experts(const Op& op, int64_t row_tiles, GpuStream stream) {
  const GpuPicks& picks = op.p.picks;
  HEARTH_CHECK(op.bfloat16s() != nullptr && op.cols() % F::kBlock == 0);
  HEARTH_CHECK(picks.tiles.count != nullptr || picks.picks == nullptr);
  const int64_t tiles = tiles_max(picks);
  if (picks.tile_size == kManyTokensLeast) {
    launch_many<F, Op, kManyTokensLeast>(op, tiles, row_tiles, stream);
  } else {
    HEARTH_CHECK(picks.tile_size == kManyTokens);
    launch_many<F, Op, kManyTokens>(op, tiles, row_tiles, stream);
  }
}

template <typename F>
void many_hidden_of_experts(const GpuExpertHiddenParams& p, GpuStream stream) {
  const ManyHidden op = {p, p.gate.cols / F::kBlock * F::kBlockBytes};
  launch_many_experts<F>(op, divide_up(p.gate.rows, ManyHidden::kRows), stream);
}

template <typename F>
void many_output_of_experts(const GpuExpertOutputParams& p, GpuStream stream) {
  const ManyOutput op = {p, p.down.cols / F::kBlock * F::kBlockBytes};
  launch_many_experts<F>(op, divide_up(p.down.rows, kManyRows), stream);
}

}  // namespace hearth::HEARTH_GPU
