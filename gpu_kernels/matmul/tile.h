// Tiles of picks, and what their products become, whatever multiplies them.
#pragma once

#include "gpu_kernels/common/grid.h"

namespace hearth::HEARTH_GPU {

// What a block has of the picks.
struct Tile {
  int32_t expert;
  int32_t count;         // of its picks, 0 for none
  int32_t first;         // its first pick, where they follow one another
  const int32_t* order;  // or the list of them

  __device__ __forceinline__ int32_t pick(int32_t t) const {
    return order != nullptr ? order[t] : first + t;
  }
  // A pick past the last is the last one again; its results are not written.
  __device__ __forceinline__ int32_t pick_or_last(int32_t t) const {
    return pick(t < count ? t : count - 1);
  }
};

__device__ __forceinline__ Tile find_tile(const GpuPicks& p, int32_t number) {
  if (p.tiles.count != nullptr) {
    if (number >= *p.tiles.count) return {0, 0, 0, nullptr};
    const int32_t begin = p.tiles.begins[number];
    return {p.tiles.experts[number], p.tiles.begins[number + 1] - begin, 0, p.tiles.order + begin};
  }
  if (p.picks != nullptr) return {p.picks[number], 1, number, nullptr};
  const int32_t first = number * p.tile_size, left = static_cast<int32_t>(p.n) - first;
  return {0, left < p.tile_size ? left : p.tile_size, first, nullptr};
}

// At most so many tiles there are.
inline int64_t tiles_max(const GpuPicks& p) {
  const int64_t picks = p.n * p.used;
  if (p.picks == nullptr) return divide_up(picks, p.tile_size);
  if (p.tiles.count == nullptr) return picks;
  const int64_t full = p.experts + picks / p.tile_size;
  return full < picks ? full : picks;
}

__device__ __forceinline__ float swiglu_value(float gate, float up, float clamp) {
  const float open = fminf(gate, clamp);
  return open / (1.0f + expf(-open)) * fminf(fmaxf(up, -clamp), clamp);
}

// The row of `out` that a pick's results go to.
__device__ __forceinline__ int64_t output_row(const GpuExpertOutputParams& p, int32_t pick) {
  return static_cast<int64_t>(pick / p.picks.used) * p.terms + p.first_term + pick % p.picks.used;
}

}  // namespace hearth::HEARTH_GPU
