// Attention of many heads to one shared row a token, on tensor cores: queries and the weights of
// rows rounded to bfloat16, sums in float32. A block takes 32 heads of one batch row and goes
// through its list in tiles of 32 cache rows, of which the next is on its way. For the scores each
// warp has 16 heads by 8 rows of a tile, for the sums all heads by 64 columns.
//
// Units of 16 bytes lie at their place xor the lowest bits of their row, so that eight rows' units
// of one column are in all banks.
#pragma once

#include "gpu_kernels/attention/row_list.h"

namespace hearth::HEARTH_GPU {

constexpr int kManyHeads = 32, kManyHeadRows = 32, kManyHeadColumns = 64;
constexpr int kManyHeadWarps = kBlockThreads / kWarpLanes;
constexpr int kScoreWarps = kManyHeadRows / 8;  // that share the rows of a tile
constexpr int kManyHeadTokensMin = 9;           // fewer are attended to in float32

inline bool attends_in_bfloat16(const GpuAttentionParams& p) {
  return p.prefill && p.n >= kManyHeadTokensMin && p.kv_type == KvType::kBF16 &&
         p.dim % kManyHeadColumns == 0;
}

// The block's shared memory.
struct ManyHeadsMemory {
  int32_t row_bytes;  // of a query or a cache row

  static constexpr int kWeightBytes = kManyHeads * kManyHeadRows * 2;
  static constexpr int kWeightRowBytes = kManyHeadRows * 2;

  __host__ __device__ size_t bytes() const {
    return static_cast<size_t>(kManyHeads + 2 * kManyHeadRows) * row_bytes + kWeightBytes +
           kScoreWarps * kManyHeads * sizeof(float);
  }
  __device__ __forceinline__ unsigned char* queries() const {
    return dynamic_shared<unsigned char>();
  }
  __device__ __forceinline__ unsigned char* rows(int64_t tile) const {
    return queries() + (kManyHeads + static_cast<int>(tile % 2) * kManyHeadRows) * row_bytes;
  }
  __device__ __forceinline__ unsigned char* weights() const {
    return queries() + (kManyHeads + 2 * kManyHeadRows) * row_bytes;
  }
  // [kScoreWarps, kManyHeads]: of the rows that each of these warps has.
  __device__ __forceinline__ float* parts() const {
    return reinterpret_cast<float*>(weights() + kWeightBytes);
  }
  __device__ __forceinline__ int at(int row, int unit) const {
    return row * row_bytes + 16 * (unit ^ (row & 7));
  }
  static __device__ __forceinline__ int weight_at(int head, int unit) {
    return head * kWeightRowBytes + 16 * (unit ^ (head / 2 & 3));
  }
};

// A block's work, from one thread's side. Of scores it has, as of any product of matrices, heads
// lane / 4 and 8 more of its warp's sixteen, and of sums those of all four groups of eight.
struct ManyHeadsBlock {
  static constexpr int kGroups = kManyHeads / 8;
  using Sums = float[kManyHeads / 16][kManyHeadColumns / 8][4];
  static constexpr int kWarpFetches = kManyHeadRows / kManyHeadWarps;
  using Scores = float[4];

  const GpuAttentionParams& p;
  ManyHeadsMemory memory;
  RowList list;
  uintptr_t next;          // where a row of the tile to be fetched next lies
  float largest[kGroups];  // of heads lane / 4 + 8 i, the same in all warps
  float totals[2];         // of the warp's scores: this thread's share
  int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int32_t first_head = static_cast<int32_t>(blockIdx.y) * kManyHeads;

  __device__ __forceinline__ explicit ManyHeadsBlock(const GpuAttentionParams& params)
      : p(params), memory{params.dim * 2}, list(row_list(params, blockIdx.x)) {
    HEARTH_UNROLL
    for (int i = 0; i < kGroups; ++i) {
      const int32_t head = first_head + lane / 4 + 8 * i;
      largest[i] = head < p.heads ? p.sinks[head] : 0.0f;
    }
    totals[0] = totals[1] = 0;
  }

  __device__ __forceinline__ int score_group() const { return warp / kScoreWarps * 2; }
  __device__ __forceinline__ int score_row() const { return warp % kScoreWarps * 8; }
  __device__ __forceinline__ int first_column() const { return warp * kManyHeadColumns; }

  // Of a tile's rows a warp fetches four, whose places four lanes look up. Rows past the last are
  // the last one again: what they hold has to be finite.
  __device__ __forceinline__ int fetched_row(int j) const { return warp + j * kManyHeadWarps; }
  __device__ __forceinline__ void look_up(int64_t tile) {
    const int64_t i = tile * kManyHeadRows + fetched_row(lane % kWarpFetches);
    next = reinterpret_cast<uintptr_t>(list.at(i < list.count ? i : list.count - 1));
  }
  __device__ __forceinline__ void fetch(int64_t tile) const {
    HEARTH_UNROLL
    for (int j = 0; j < kWarpFetches; ++j) {
      const auto* from = reinterpret_cast<const unsigned char*>(__shfl_sync(kAllLanes, next, j));
      unsigned char* to = memory.rows(tile);
      for (int unit = lane; unit < p.dim / 8; unit += kWarpLanes) {
        copy16_async(to + memory.at(fetched_row(j), unit), from + 16 * unit);
      }
    }
  }

  // Heads past the last are zeros.
  __device__ __forceinline__ void load_queries() const {
    const int units = p.dim / 8;
    for (int i = static_cast<int>(threadIdx.x); i < kManyHeads * units; i += kBlockThreads) {
      const int head = i / units, unit = i % units;
      uint4 rounded = make_uint4(0, 0, 0, 0);
      if (first_head + head < p.heads) {
        const int64_t row = static_cast<int64_t>(blockIdx.x) * p.heads + first_head + head;
        const float4* q = reinterpret_cast<const float4*>(p.q + row * p.dim + 8 * unit);
        const float4 low = q[0], high = q[1];
        rounded = make_uint4(pack_bfloat16s(low.x, low.y), pack_bfloat16s(low.z, low.w),
                             pack_bfloat16s(high.x, high.y), pack_bfloat16s(high.z, high.w));
      }
      *reinterpret_cast<uint4*>(memory.queries() + memory.at(head, unit)) = rounded;
    }
  }

  // Of the warp's sixteen heads and eight rows; those past the list's end count nothing.
  __device__ __forceinline__ void score(int64_t tile, Scores& scores) const {
    const unsigned char *q = memory.queries(), *k = memory.rows(tile);
    const int head = score_group() * 8 + lane % 16, row = score_row() + lane % 8;
    for (int unit = 0; unit < p.dim / 8; unit += 4) {
      uint32_t a[2][4], b[4];
      load_matrices(a[0], q + memory.at(head, unit + lane / 16));
      load_matrices(a[1], q + memory.at(head, unit + 2 + lane / 16));
      load_matrices(b, k + memory.at(row, unit + lane / 8));
      multiply_matrices(scores, a[0], b[0], b[1]);
      multiply_matrices(scores, a[1], b[2], b[3]);
    }
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int64_t own = tile * kManyHeadRows + score_row() + lane % 4 * 2 + i % 2;
      scores[i] = own < list.count ? scores[i] * p.scale : bits_to_float(0xff800000);
    }
  }

  // The largest of each head's scores, first over the four lanes that have them, to all warps.
  __device__ __forceinline__ void share_largest(const Scores& scores) const {
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      float own = fmaxf(scores[2 * i], scores[2 * i + 1]);
      own = fmaxf(own, __shfl_xor_sync(kAllLanes, own, 1));
      own = fmaxf(own, __shfl_xor_sync(kAllLanes, own, 2));
      const int head = (score_group() + i) * 8 + lane / 4;
      if (lane % 4 == 0) memory.parts()[warp % kScoreWarps * kManyHeads + head] = own;
    }
  }

  // The weights of a tile's rows, and what is summed up, relative to the largest scores with it.
  __device__ __forceinline__ void weigh(const Scores& scores, Sums& sums) {
    float corrections[kGroups];
    HEARTH_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      float now = largest[g];
      HEARTH_UNROLL
      for (int w = 0; w < kScoreWarps; ++w) {
        now = fmaxf(now, memory.parts()[w * kManyHeads + 8 * g + lane / 4]);
      }
      corrections[g] = expf(largest[g] - now);
      largest[g] = now;
      HEARTH_UNROLL
      for (int t = 0; t < kManyHeadColumns / 8; ++t) {
        sums[g / 2][t][g % 2 * 2] *= corrections[g];
        sums[g / 2][t][g % 2 * 2 + 1] *= corrections[g];
      }
    }
    const bool upper = score_group() != 0;
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float base = upper ? largest[2 + i] : largest[i];
      const float low = expf(scores[2 * i] - base), high = expf(scores[2 * i + 1] - base);
      totals[i] = fmaf(totals[i], upper ? corrections[2 + i] : corrections[i], low + high);
      const int head = (score_group() + i) * 8 + lane / 4;
      unsigned char* to = memory.weights() + memory.weight_at(head, score_row() / 8);
      reinterpret_cast<uint32_t*>(to)[lane % 4] = pack_bfloat16s(low, high);
    }
  }

  __device__ __forceinline__ void add_rows(int64_t tile, Sums& sums) const {
    if (first_column() >= p.dim) return;
    const unsigned char* k = memory.rows(tile);
    HEARTH_UNROLL
    for (int step = 0; step < kManyHeadRows / 16; ++step) {
      uint32_t a[kManyHeads / 16][4];
      HEARTH_UNROLL
      for (int h = 0; h < kManyHeads / 16; ++h) {
        load_matrices(
            a[h], memory.weights() + memory.weight_at(16 * h + lane % 16, 2 * step + lane / 16));
      }
      HEARTH_UNROLL
      for (int t = 0; t < kManyHeadColumns / 8; t += 2) {
        uint32_t b[4];  // of two tiles of columns, the first and the last eight rows of each
        load_matrices_transposed(
            b, k + memory.at(16 * step + lane % 16, first_column() / 8 + t + lane / 16));
        HEARTH_UNROLL
        for (int h = 0; h < kManyHeads / 16; ++h) {
          multiply_matrices(sums[h][t], a[h], b[0], b[1]);
          multiply_matrices(sums[h][t + 1], a[h], b[2], b[3]);
        }
      }
    }
  }

  // The totals of all warps together, then the outputs; all threads of the block.
  __device__ __forceinline__ void finish(const Sums& sums) {
    HEARTH_UNROLL
    for (int i = 0; i < 2; ++i) {
      float own = totals[i];
      own += __shfl_xor_sync(kAllLanes, own, 1);
      own += __shfl_xor_sync(kAllLanes, own, 2);
      const int head = (score_group() + i) * 8 + lane / 4;
      if (lane % 4 == 0) memory.parts()[warp % kScoreWarps * kManyHeads + head] = own;
    }
    __syncthreads();
    if (first_column() >= p.dim) return;
    HEARTH_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      const int32_t head = first_head + 8 * g + lane / 4;
      if (head >= p.heads) continue;
      float total = expf(p.sinks[head] - largest[g]);
      for (int w = 0; w < kScoreWarps; ++w) {
        total += memory.parts()[w * kManyHeads + 8 * g + lane / 4];
      }
      const float factor = 1.0f / total;
      float* out = p.out + (static_cast<int64_t>(blockIdx.x) * p.heads + head) * p.dim +
                   first_column() + lane % 4 * 2;
      HEARTH_UNROLL
      for (int t = 0; t < kManyHeadColumns / 8; ++t) {
        const float(&own)[4] = sums[g / 2][t];
        *reinterpret_cast<float2*>(out + 8 * t) =
            make_float2(own[g % 2 * 2] * factor, own[g % 2 * 2 + 1] * factor);
      }
    }
  }
};

__global__ void __launch_bounds__(kBlockThreads, 2) many_heads_kernel(GpuAttentionParams p) {
  ManyHeadsBlock block(p);
  ManyHeadsBlock::Sums sums = {};
  const int64_t tiles = divide_up(block.list.count, kManyHeadRows);
  block.look_up(0);
  block.fetch(0);
  commit_copies();
  block.look_up(1);
  block.load_queries();
  for (int64_t tile = 0; tile < tiles; ++tile) {
    wait_copies<0>();
    __syncthreads();  // the tile is there, and nobody reads the one before it any more
    if (tile + 1 < tiles) block.fetch(tile + 1);
    commit_copies();
    block.look_up(tile + 2);
    ManyHeadsBlock::Scores scores = {};
    block.score(tile, scores);
    block.share_largest(scores);
    __syncthreads();  // the largest scores of all warps are there
    block.weigh(scores, sums);
    __syncthreads();  // and so are the weights
    block.add_rows(tile, sums);
  }
  block.finish(sums);
}

inline void attend_in_bfloat16(const GpuAttentionParams& p, GpuStream stream) {
  const dim3 grid(static_cast<uint32_t>(p.n),
                  static_cast<uint32_t>(divide_up(p.heads, kManyHeads)));
  launch(many_heads_kernel, {grid, kBlockThreads, ManyHeadsMemory{p.dim * 2}.bytes()}, stream, p);
}

}  // namespace hearth::HEARTH_GPU
