// A block takes 64 entries of one row of the batch and goes through the heads, 64 at a time, and
// the columns, 32 at a time: a product of two tiles in shared memory, of which a thread has the
// results of four entries with eight heads in registers.
#include "gpu_kernels/attention/kv_rows.h"
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kThreads = 128;
constexpr int kTile = 64;     // entries, heads
constexpr int kColumns = 32;  // of a tile
constexpr int kEntries = 4;   // of a thread
constexpr int kHeads = 8;     // of a thread
constexpr int kHeadLanes = kTile / kHeads;
constexpr int kOwnColumns = kColumns / (kThreads / kTile);  // that a thread brings of one row

static_assert(kThreads / kHeadLanes * kEntries == kTile);
static_assert(kOwnColumns % kOctet == 0);

// Columns first .. first + 31 of 64 rows to `tile` [32][64], zeros where there are none. A thread
// brings half of one row's: neighbours write to neighbouring places.
template <KvType kType>
__device__ __forceinline__ void bring_tile(const void* rows, int64_t row, int64_t rows_end,
                                           int32_t dim, int32_t first, float (*tile)[kTile]) {
  const int at = static_cast<int>(threadIdx.x) % kTile;
  const int begin = static_cast<int>(threadIdx.x) / kTile * kOwnColumns;
  const unsigned char* from = static_cast<const unsigned char*>(rows) +
                              ((row + at) * dim + first + begin) * kv_bytes(kType);
  HEARTH_UNROLL
  for (int o = 0; o < kOwnColumns; o += kOctet) {
    float values[kOctet] = {};
    if (row + at < rows_end) {
      const int left = dim - first - begin - o;
      if (dim % kOctet == 0) {
        if (left > 0) load_kv_octet<kType>(from + o * kv_bytes(kType), values);
      } else {
        HEARTH_UNROLL
        for (int i = 0; i < kOctet; ++i) {
          if (i < left) values[i] = load_kv<kType>(from, o + i);
        }
      }
    }
    HEARTH_UNROLL
    for (int i = 0; i < kOctet; ++i) tile[begin + o + i][at] = values[i];
  }
}

// dots += the products of the two tiles.
__device__ __forceinline__ void multiply_tiles(const float (*keys)[kTile],
                                               const float (*queries)[kTile], int entry,
                                               int head_lane, float (&dots)[kEntries][kHeads]) {
  HEARTH_UNROLL
  for (int d = 0; d < kColumns; ++d) {
    const float4 k = *reinterpret_cast<const float4*>(&keys[d][entry]);
    const float4 low = *reinterpret_cast<const float4*>(&queries[d][head_lane * 4]);
    const float4 high = *reinterpret_cast<const float4*>(&queries[d][kTile / 2 + head_lane * 4]);
    const float key[kEntries] = {k.x, k.y, k.z, k.w};
    const float query[kHeads] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    HEARTH_UNROLL
    for (int e = 0; e < kEntries; ++e) {
      HEARTH_UNROLL
      for (int h = 0; h < kHeads; ++h) dots[e][h] = fmaf(key[e], query[h], dots[e][h]);
    }
  }
}

// The number of a thread's head h within a tile.
__device__ __forceinline__ int tile_head(int head_lane, int h) {
  return h / 4 * (kTile / 2) + head_lane * 4 + h % 4;
}

template <KvType kType>
__global__ void __launch_bounds__(kThreads) index_scores_kernel(GpuIndexScoresParams p) {
  alignas(16) __shared__ float keys[kColumns][kTile];
  alignas(16) __shared__ float queries[kColumns][kTile];
  const int64_t row = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kTile;
  const GpuRow& at = p.rows[row];
  const int64_t visible = (at.position + 1) / p.ratio;
  if (first >= visible) return;
  const void* rows = p.caches[at.sequence].index.rows;
  const float* q = p.q + row * p.heads * p.dim;
  const float* head_weights = p.head_weights + row * p.heads;
  const int head_lane = threadIdx.x % kHeadLanes;
  const int entry = static_cast<int>(threadIdx.x) / kHeadLanes * kEntries;

  float scores[kEntries] = {};
  for (int32_t head = 0; head < p.heads; head += kTile) {
    float dots[kEntries][kHeads] = {};
    for (int32_t column = 0; column < p.dim; column += kColumns) {
      __syncthreads();  // nobody reads the tiles before these any more
      bring_tile<kType>(rows, first, visible, p.dim, column, keys);
      bring_tile<KvType::kF32>(q, head, p.heads, p.dim, column, queries);
      __syncthreads();
      multiply_tiles(keys, queries, entry, head_lane, dots);
    }
    HEARTH_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const int32_t number = head + tile_head(head_lane, h);
      if (number >= p.heads) continue;
      const float weight = head_weights[number] * p.scale;
      HEARTH_UNROLL
      for (int e = 0; e < kEntries; ++e) {
        // Not fmaxf, which would turn NaN to 0.
        scores[e] = fmaf(weight, dots[e][h] < 0 ? 0.0f : dots[e][h], scores[e]);
      }
    }
  }
  HEARTH_UNROLL
  for (int e = 0; e < kEntries; ++e) {
    HEARTH_UNROLL
    for (int distance = 1; distance < kHeadLanes; distance *= 2) {
      scores[e] += __shfl_xor_sync(kAllLanes, scores[e], distance);
    }
    if (head_lane == e && first + entry + e < visible) {
      p.scores[row * p.scores_stride + first + entry + e] = scores[e];
    }
  }
}

}  // namespace

void index_scores(const GpuIndexScoresParams& params, GpuStream stream) {
  if (params.n == 0 || params.entries_max == 0) return;
  HEARTH_CHECK(params.n <= 65535);
  const dim3 grid(static_cast<uint32_t>(divide_up(params.entries_max, kTile)),
                  static_cast<uint32_t>(params.n));
  if (params.kv_type == KvType::kF32) {
    launch(index_scores_kernel<KvType::kF32>, {grid, kThreads}, stream, params);
  } else {
    launch(index_scores_kernel<KvType::kBF16>, {grid, kThreads}, stream, params);
  }
}

}  // namespace hearth::HEARTH_GPU
