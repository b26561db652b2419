// Attention of few heads or many to one shared row a token. A block takes 16 heads of one batch row
// and a part of its list of cache rows, which it brings to shared memory tile by tile. A warp has
// four heads: each lane holds its columns of their queries and of their sums in registers, so that
// a tile is read from shared memory twice for four heads. A second kernel joins the parts.
#include "gpu_kernels/attention/many_heads.h"
#include "gpu_kernels/attention/row_list.h"
#include "gpu_kernels/common/rounding.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int kWarpHeads = 4;
constexpr int kBlockHeads = kWarps * kWarpHeads;
constexpr int kStages = 3;  // tiles in shared memory
constexpr int kTileScores = kTileRows * kWarpHeads;
static_assert(kTileScores == kWarpLanes);  // a lane has one
// Batch rows whose parts are in the scratch memory at once: enough of them to fill a GPU.
constexpr int64_t kRowsAtOnce = 8;

struct Work {
  GpuAttentionParams p;
  int64_t first_row;  // of the batch rows at hand
  int32_t splits;     // parts the scratch has room for, 1 where it is not used
  float* sums;        // [rows at hand, splits, heads, dim], relative to `largest`
  float* stats;       // [rows at hand, splits, heads, 2]: largest score, sum of the terms
};

__device__ __forceinline__ float minus_infinity() { return bits_to_float(0xff800000); }

// ---- the rows ----

template <KvType kType>
struct Tiles {
  RowList list;
  int64_t begin, end;  // of the list
  int64_t count;       // tiles
  int32_t dim;
  int32_t stride;  // bytes of a row in shared memory: whole octets
  unsigned char* shared;
  const unsigned char* next[kTileRows / kWarps];  // this warp's rows of the tile to be fetched next

  __device__ __forceinline__ unsigned char* row(int64_t tile, int r) const {
    return shared + (static_cast<int32_t>(tile % kStages) * kTileRows + r) * stride;
  }

  // Rows past the last are the last one again: what they hold has to be finite.
  __device__ __forceinline__ void look_up(int64_t tile) {
    HEARTH_UNROLL
    for (int j = 0; j < kTileRows / kWarps; ++j) {
      const int64_t i = begin + tile * kTileRows + threadIdx.x / kWarpLanes + j * kWarps;
      next[j] = list.at(i < end ? i : end - 1);
    }
  }

  __device__ __forceinline__ void fetch(int64_t tile) const {
    const int lane = threadIdx.x % kWarpLanes;
    HEARTH_UNROLL
    for (int j = 0; j < kTileRows / kWarps; ++j) {
      if (tile >= count) break;
      unsigned char* to = row(tile, threadIdx.x / kWarpLanes + j * kWarps);
      if (dim % kOctet == 0) {
        for (int at = lane * 16; at < stride; at += kWarpLanes * 16) {
          copy16_async(to + at, next[j] + at);
        }
      } else {
        copy_values(to, next[j]);
      }
    }
    commit_copies();
  }

  // Rows that are not whole octets lie at any address; zeros fill their last one.
  __device__ __forceinline__ void copy_values(unsigned char* to, const unsigned char* from) const {
    for (int i = threadIdx.x % kWarpLanes; i < stride / kv_bytes(kType); i += kWarpLanes) {
      store_kv(i < dim ? load_kv<kType>(from, i) : 0.0f, kType, to, i);
    }
  }
};

// A lane's octets of a row; zeros past the row's end.
template <KvType kType, int kOctets>
__device__ __forceinline__ void load_columns(const unsigned char* row, int32_t stride,
                                             float (&out)[kOctets][kOctet]) {
  HEARTH_UNROLL
  for (int o = 0; o < kOctets; ++o) {
    const int at =
        (o * kWarpLanes + static_cast<int>(threadIdx.x) % kWarpLanes) * kOctet * kv_bytes(kType);
    if (at < stride) {
      load_kv_octet<kType>(row + at, out[o]);
    } else {
      HEARTH_UNROLL
      for (int i = 0; i < kOctet; ++i) out[o][i] = 0;
    }
  }
}

// ---- one warp's heads ----

template <int kOctets>
struct Heads {
  float q[kWarpHeads][kOctets][kOctet];
  float sums[kWarpHeads][kOctets][kOctet];
  // Of head lane % 4, the same in all of its lanes but for `total`, of which each has a share.
  float largest;
  float total;
};

__device__ __forceinline__ int octet_column(int o) {
  return (o * kWarpLanes + static_cast<int>(threadIdx.x) % kWarpLanes) * kOctet;
}

template <int kOctets>
__device__ __forceinline__ void load_queries(const GpuAttentionParams& p, const float* q,
                                             int32_t head, float (&out)[kOctets][kOctet]) {
  HEARTH_UNROLL
  for (int o = 0; o < kOctets; ++o) {
    const int column = octet_column(o);
    const float* from = q + static_cast<int64_t>(head) * p.dim + column;
    HEARTH_UNROLL
    for (int i = 0; i < kOctet; ++i) {
      out[o][i] = head < p.heads && column + i < p.dim ? from[i] : 0.0f;
    }
  }
}

template <int kOctets>
__device__ __forceinline__ void store_columns(float* row, int32_t dim, float factor,
                                              const float (&values)[kOctets][kOctet]) {
  HEARTH_UNROLL
  for (int o = 0; o < kOctets; ++o) {
    const int column = octet_column(o);
    const float(&v)[kOctet] = values[o];
    if (dim % kOctet == 0) {
      if (column >= dim) continue;
      float4* to = reinterpret_cast<float4*>(row + column);
      to[0] = make_float4(v[0] * factor, v[1] * factor, v[2] * factor, v[3] * factor);
      to[1] = make_float4(v[4] * factor, v[5] * factor, v[6] * factor, v[7] * factor);
    } else {
      HEARTH_UNROLL
      for (int i = 0; i < kOctet; ++i) {
        if (column + i < dim) row[column + i] = v[i] * factor;
      }
    }
  }
}

// values[i] summed over all lanes, in lane i, if called with half a warp: each step halves how many
// values a lane carries.
template <int kDistance>
__device__ __forceinline__ float sums_to_lanes(float (&values)[2 * kDistance]) {
  const bool upper = (threadIdx.x & kDistance) != 0;
  float half[kDistance];
  HEARTH_UNROLL
  for (int i = 0; i < kDistance; ++i) {
    const float kept = upper ? values[i + kDistance] : values[i];
    const float given = upper ? values[i] : values[i + kDistance];
    half[i] = kept + __shfl_xor_sync(kAllLanes, given, kDistance);
  }
  if constexpr (kDistance == 1) {
    return half[0];
  } else {
    return sums_to_lanes<kDistance / 2>(half);
  }
}

// Over the lanes of one head.
__device__ __forceinline__ float head_max(float value) {
  HEARTH_UNROLL
  for (int distance = kWarpHeads; distance < kWarpLanes; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}
__device__ __forceinline__ float head_sum(float value) {
  HEARTH_UNROLL
  for (int distance = kWarpHeads; distance < kWarpLanes; distance *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

template <KvType kType, int kOctets>
__device__ __forceinline__ float tile_score(const Tiles<kType>& tiles, int64_t tile,
                                            const Heads<kOctets>& heads) {
  float scores[kTileScores];
  HEARTH_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    float row[kOctets][kOctet];
    load_columns<kType>(tiles.row(tile, r), tiles.stride, row);
    HEARTH_UNROLL
    for (int h = 0; h < kWarpHeads; ++h) {
      float score = 0;
      HEARTH_UNROLL
      for (int o = 0; o < kOctets; ++o) {
        HEARTH_UNROLL
        for (int i = 0; i < kOctet; ++i) score = fmaf(heads.q[h][o][i], row[o][i], score);
      }
      scores[r * kWarpHeads + h] = score;
    }
  }
  return sums_to_lanes<kWarpLanes / 2>(scores);
}

// Takes in one tile. `weights` [kTileScores] is this warp's.
template <KvType kType, int kOctets>
__device__ __forceinline__ void attend_tile(const Tiles<kType>& tiles, int64_t tile, float scale,
                                            float* weights, Heads<kOctets>& heads) {
  const int lane = threadIdx.x % kWarpLanes;
  const float product = tile_score(tiles, tile, heads) * scale;
  const bool there = tiles.begin + tile * kTileRows + lane / kWarpHeads < tiles.end;
  const float score = there ? product : minus_infinity();
  const float largest = fmaxf(heads.largest, head_max(score));
  const float correction = expf(heads.largest - largest);
  const float term = expf(score - largest);
  heads.total = fmaf(heads.total, correction, term);
  heads.largest = largest;
  weights[lane] = term;
  if (__any_sync(kAllLanes, correction != 1.0f)) {
    HEARTH_UNROLL
    for (int h = 0; h < kWarpHeads; ++h) {
      const float factor = __shfl_sync(kAllLanes, correction, h);
      HEARTH_UNROLL
      for (int o = 0; o < kOctets; ++o) {
        HEARTH_UNROLL
        for (int i = 0; i < kOctet; ++i) heads.sums[h][o][i] *= factor;
      }
    }
  }
  __syncwarp();
  HEARTH_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    float row[kOctets][kOctet];
    load_columns<kType>(tiles.row(tile, r), tiles.stride, row);
    const float4 four = reinterpret_cast<const float4*>(weights)[r];
    const float of_head[kWarpHeads] = {four.x, four.y, four.z, four.w};
    HEARTH_UNROLL
    for (int h = 0; h < kWarpHeads; ++h) {
      HEARTH_UNROLL
      for (int o = 0; o < kOctets; ++o) {
        HEARTH_UNROLL
        for (int i = 0; i < kOctet; ++i) {
          heads.sums[h][o][i] = fmaf(of_head[h], row[o][i], heads.sums[h][o][i]);
        }
      }
    }
  }
}

// A part's sums to the scratch memory, or, where there is one part only, the outputs.
template <int kOctets>
__device__ __forceinline__ void finish(const Work& work, int32_t first_head, float sink,
                                       const Heads<kOctets>& heads) {
  const GpuAttentionParams& p = work.p;
  const int lane = threadIdx.x % kWarpLanes;
  const float total = head_sum(heads.total);
  const float factor = p.prefill ? 1.0f / (total + expf(sink - heads.largest)) : 1.0f;
  const int64_t place = p.prefill ? (work.first_row + blockIdx.z) * p.heads
                                  : (int64_t{blockIdx.z} * work.splits + blockIdx.x) * p.heads;
  float* sums = p.prefill ? p.out : work.sums;
  HEARTH_UNROLL
  for (int h = 0; h < kWarpHeads; ++h) {
    const float of_head = __shfl_sync(kAllLanes, factor, h);
    if (first_head + h < p.heads) {
      store_columns(sums + (place + first_head + h) * p.dim, p.dim, of_head, heads.sums[h]);
    }
  }
  if (!p.prefill && lane < kWarpHeads && first_head + lane < p.heads) {
    float* stats = work.stats + (place + first_head + lane) * 2;
    stats[0] = heads.largest;
    stats[1] = total;
  }
}

template <KvType kType, int kOctets>
__global__ void __launch_bounds__(kThreads) attention_kernel(Work work) {
  __shared__ float4 weights[kWarps][kTileScores / 4];
  const GpuAttentionParams& p = work.p;
  const int64_t row = work.first_row + blockIdx.z;
  const int warp = threadIdx.x / kWarpLanes, lane = threadIdx.x % kWarpLanes;

  Tiles<kType> tiles;
  tiles.list = row_list(p, row);
  const int64_t rows = p.prefill ? tiles.list.count : split_rows(tiles.list.count);
  tiles.begin = blockIdx.x * rows;
  if (tiles.begin >= tiles.list.count) return;
  tiles.end = tiles.begin + rows < tiles.list.count ? tiles.begin + rows : tiles.list.count;
  tiles.count = divide_up(tiles.end - tiles.begin, kTileRows);
  tiles.dim = p.dim;
  tiles.stride = static_cast<int32_t>(divide_up(p.dim, kOctet)) * kOctet * kv_bytes(kType);
  tiles.shared = dynamic_shared<unsigned char>();
  HEARTH_UNROLL
  for (int i = 0; i < kStages - 1; ++i) {
    tiles.look_up(i);
    tiles.fetch(i);
  }
  tiles.look_up(kStages - 1);

  const int32_t first_head = static_cast<int32_t>(blockIdx.y) * kBlockHeads + warp * kWarpHeads;
  const int32_t own_head = first_head + lane % kWarpHeads;
  const float sink = own_head < p.heads ? p.sinks[own_head] : 0.0f;
  Heads<kOctets> heads;
  HEARTH_UNROLL
  for (int h = 0; h < kWarpHeads; ++h) {
    load_queries(p, p.q + row * p.heads * p.dim, first_head + h, heads.q[h]);
    HEARTH_UNROLL
    for (int o = 0; o < kOctets; ++o) {
      HEARTH_UNROLL
      for (int i = 0; i < kOctet; ++i) heads.sums[h][o][i] = 0;
    }
  }
  heads.largest = sink;
  heads.total = 0;
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the tile is there, and nobody reads the one before it any more
    tiles.fetch(tile + kStages - 1);
    tiles.look_up(tile + kStages);
    attend_tile(tiles, tile, p.scale, &weights[warp][0].x, heads);
  }
  finish(work, first_head, sink, heads);
}

// ---- the parts together ----

constexpr int kColumns = 4;  // of a thread
static_assert(kColumns * kThreads >= kGpuHeadDimMax);

// Adds `factor` times the first `count` of four values.
__device__ __forceinline__ void add_columns(const float* from, int count, float factor,
                                            float (&sums)[kColumns]) {
  float values[kColumns] = {};
  if (count >= kColumns && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
  } else {
    for (int i = 0; i < kColumns && i < count; ++i) values[i] = from[i];
  }
  HEARTH_UNROLL
  for (int i = 0; i < kColumns; ++i) sums[i] = fmaf(factor, values[i], sums[i]);
}

// Rotates the pairs of four columns of an output, if outputs are.
__device__ __forceinline__ void turn_back(const GpuAttentionParams& p, int64_t row, int column,
                                          float (&values)[kColumns]) {
  if (p.cosines == nullptr) return;
  HEARTH_UNROLL
  for (int i = 0; i < kColumns; i += 2) {
    const int pair = (column + i - (p.dim - p.rope_dim)) / 2;
    if (column + i < p.dim - p.rope_dim || column + i >= p.dim) continue;
    const int64_t angle = row * (p.rope_dim / 2) + pair;
    const float cosine = p.cosines[angle], sine = -p.sines[angle], a = values[i], b = values[i + 1];
    values[i] = a * cosine - b * sine;
    values[i + 1] = a * sine + b * cosine;
  }
}

// A block takes one head of one batch row, a lane of its first warp the numbers of one part.
__global__ void __launch_bounds__(kThreads) combine_kernel(Work work) {
  __shared__ float factors[kSplitsMax];
  const GpuAttentionParams& p = work.p;
  const int64_t row = work.first_row + blockIdx.y, head = blockIdx.x;
  const int64_t count = row_list(p, row).count;
  const int splits = static_cast<int>(divide_up(count, split_rows(count)));
  const int64_t first = int64_t{blockIdx.y} * work.splits * p.heads + head;
  if (threadIdx.x < kWarpLanes) {
    const int split = threadIdx.x;
    const float* stats = work.stats + (first + split * p.heads) * 2;
    const float sink = p.sinks[head];
    const float own = split < splits ? stats[0] : minus_infinity();
    float largest = fmaxf(sink, own);
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
    }
    const float factor = expf(own - largest);
    const float total = warp_sum(split < splits ? factor * stats[1] : 0.0f);
    factors[split] = factor / (total + expf(sink - largest));
  }
  __syncthreads();
  const int column = static_cast<int>(threadIdx.x) * kColumns;
  if (column >= p.dim) return;
  float values[kColumns] = {};
  for (int split = 0; split < splits; ++split) {
    const float* sums = work.sums + (first + int64_t{split} * p.heads) * p.dim + column;
    add_columns(sums, p.dim - column, factors[split], values);
  }
  turn_back(p, row, column, values);
  float* out = p.out + (row * p.heads + head) * p.dim + column;
  HEARTH_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    if (column + i < p.dim) out[i] = values[i];
  }
  if (p.out_q.codes == nullptr) return;
  // The lanes of a block of 32 are all there or all not.
  const uint32_t lanes = 0xffu << (threadIdx.x % kWarpLanes / kQuadBlockLanes * kQuadBlockLanes);
  const int64_t quad = ((row * p.heads + head) * p.dim + column) / kColumns;
  round_quad(make_float4(values[0], values[1], values[2], values[3]), quad, lanes, p.out_q);
}

template <KvType kType>
void launch_attention(const Work& work, int64_t rows, GpuStream stream) {
  const GpuAttentionParams& p = work.p;
  const dim3 grid(static_cast<uint32_t>(work.splits),
                  static_cast<uint32_t>(divide_up(p.heads, kBlockHeads)),
                  static_cast<uint32_t>(rows));
  const size_t octets = static_cast<size_t>(divide_up(p.dim, kOctet));
  const size_t shared_bytes = kStages * kTileRows * octets * kOctet * kv_bytes(kType);
  HEARTH_CHECK(shared_bytes <= kSharedLeast);
  if (p.dim <= kWarpLanes * kOctet) {
    launch(attention_kernel<kType, 1>, {grid, kThreads, shared_bytes}, stream, work);
  } else {
    launch(attention_kernel<kType, 2>, {grid, kThreads, shared_bytes}, stream, work);
  }
}

constexpr int64_t kGridRowsMax = 65535;

void attend_in_blocks(const GpuAttentionParams& params, GpuStream stream) {
  Work work = {params, 0, params.prefill ? 1 : kSplitsMax, nullptr, nullptr};
  const int64_t step = params.prefill ? kGridRowsMax : kRowsAtOnce;
  for (; work.first_row < params.n; work.first_row += step) {
    const int64_t left = params.n - work.first_row, rows = left < step ? left : step;
    if (!params.prefill) {
      work.sums = params.scratch;
      work.stats = params.scratch + rows * work.splits * params.heads * params.dim;
    }
    if (params.kv_type == KvType::kF32) {
      launch_attention<KvType::kF32>(work, rows, stream);
    } else {
      launch_attention<KvType::kBF16>(work, rows, stream);
    }
    if (params.prefill) continue;
    launch(combine_kernel,
           {{static_cast<uint32_t>(params.heads), static_cast<uint32_t>(rows)}, kThreads}, stream,
           work);
  }
}

}  // namespace

int64_t attention_scratch_floats(int64_t n, int32_t heads, int32_t dim) {
  return (n < kRowsAtOnce ? n : kRowsAtOnce) * kSplitsMax * heads * (int64_t{dim} + 2);
}

void attention(const GpuAttentionParams& params, GpuStream stream) {
  HEARTH_CHECK(params.dim <= kGpuHeadDimMax);
  HEARTH_CHECK(params.cosines == nullptr || (params.dim - params.rope_dim) % 2 == 0);
  HEARTH_CHECK(params.out_q.codes == nullptr || (!params.prefill && params.dim % 32 == 0));
  static_assert(kGpuHeadDimMax == 2 * kWarpLanes * kOctet);
  static_assert(kGpuHeadDimMax == kManyHeadWarps * kManyHeadColumns);
  if (params.heads > 0 && attends_in_bfloat16(params)) {
    attend_in_bfloat16(params, stream);
  } else {
    attend_in_blocks(params, stream);
  }
  if (params.prefill && params.cosines != nullptr) {
    rope({params.out, params.n, params.heads, params.dim, params.rope_dim, params.cosines,
          params.sines, true},
         stream);
  }
}

}  // namespace hearth::HEARTH_GPU
