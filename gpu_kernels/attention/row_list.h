// The rows of a cache that one row of a batch attends to, and how long lists are cut.
#pragma once

#include "gpu_kernels/attention/kv_rows.h"
#include "gpu_kernels/common/grid.h"

namespace hearth::HEARTH_GPU {

constexpr int kTileRows = 8;    // rows that are worked on at once
constexpr int kSplitsMax = 32;  // parts of a list; one lane each when they are joined
constexpr int64_t kSplitRowsMin = 2 * kTileRows;  // fewer would be more to join than to do

struct RowList {
  const unsigned char* window;
  const unsigned char* entries;
  const int32_t* selected;  // null: all entries
  int64_t window_slots;
  int64_t first_slot;    // of the oldest row of the window
  int64_t window_count;  // rows of the window, which come first
  int64_t count;         // all rows
  int64_t row_bytes;

  __device__ __forceinline__ const unsigned char* at(int64_t i) const {
    if (i < window_count) {
      const int64_t slot = first_slot + i;
      return window + (slot < window_slots ? slot : slot - window_slots) * row_bytes;
    }
    const int64_t entry = selected != nullptr ? selected[i - window_count] : i - window_count;
    return entries + entry * row_bytes;
  }
};

__device__ __forceinline__ RowList row_list(const GpuAttentionParams& p, int64_t row) {
  const GpuRow at = p.rows[row];
  const GpuSequenceCache& cache = p.caches[at.sequence];
  RowList list;
  list.window = static_cast<const unsigned char*>(cache.window);
  list.entries = static_cast<const unsigned char*>(cache.entries.rows);
  list.selected = p.selected != nullptr ? p.selected + row * p.top_k : nullptr;
  list.window_slots = cache.window_slots;
  list.window_count = at.position + 1 < p.window ? at.position + 1 : p.window;
  list.first_slot = (at.position + 1 - list.window_count) % cache.window_slots;
  int64_t entries = 0;
  if (p.selected != nullptr) {
    entries = p.selected_count[row];
  } else if (p.ratio > 0) {
    entries = (at.position + 1) / p.ratio;
  }
  list.count = list.window_count + entries;
  list.row_bytes = static_cast<int64_t>(p.dim) * kv_bytes(p.kv_type);
  return list;
}

// Rows of each part but the last: by the length of the list alone, so that a result depends on
// nothing else.
__device__ __forceinline__ int64_t split_rows(int64_t count) {
  const int64_t even = divide_up(divide_up(count, kSplitsMax), kTileRows) * kTileRows;
  return even > kSplitRowsMin ? even : kSplitRowsMin;
}

}  // namespace hearth::HEARTH_GPU
