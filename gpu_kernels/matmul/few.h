// Products of matrices, as they are stored, with few tokens: the work is to read the weights once.
// A warp walks through units of one row or two, for up to eight tokens, as one stream of chunks:
// those of its next rows are on their way while it still sums the ones before. Chunks go to shared
// memory in aligned units of 16 bytes, so blocks of 17 or 34 bytes cost no more than others and the
// memory always has requests waiting. Matrices of few rows have several warps on a row, each with
// every so many-th chunk. Several matrices that read the same activations share a launch.
#pragma once

#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/matmul/unpack.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

constexpr int kFewWarps = kBlockThreads / kWarpLanes;
constexpr int kFewTokensMax = 8;
constexpr int64_t kFewWarpsWanted = 8192;  // with a row each: two waves of a large GPU's warps
constexpr int kFewBytes = 4608;            // that a warp has fetched or on their way

// The aligned units that hold `bytes` from any address, to `stage`: the lanes of a warp together.
// They arrive with the commit that follows. What a unit holds beside the bytes is read too: memory
// of the device is whole units.
__device__ __forceinline__ void fetch_bytes(unsigned char* stage, const unsigned char* from,
                                            int bytes) {
  const int before = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15);
  for (int at = 16 * static_cast<int>(threadIdx.x % kWarpLanes); at < before + bytes;
       at += 16 * kWarpLanes) {
    copy16_async(stage + at, from - before + at);
  }
}

// The units of one warp, and its share of their chunks.
template <typename F, int kRows>
struct FewRows {
  static constexpr int kChunkBytes = F::kChunk / F::kBlock * F::kBlockBytes;
  // Its place within 16 bytes before it, a word read past it behind it.
  static constexpr int kStageBytes = (15 + kChunkBytes + 4 + 15) / 16 * 16;
  static constexpr int kFetched = kFewBytes / (kRows * kStageBytes);
  static constexpr int kStages = kFetched > 2 ? kFetched : 2;
  static constexpr int kWarpBytes = kStages * kRows * kStageBytes;
  static constexpr int kSharedBytes = F::kTableBytes + kFewWarps * kWarpBytes;

  const unsigned char* row[kRows];  // of the first unit; set by the caller
  int64_t row_bytes;
  int32_t first_chunk, chunk_step, chunks;  // `chunks` of a row, `chunk_step` apart; 0 for no units
  int32_t units = 1;
  int64_t unit_bytes = 0;  // from one unit's rows to the next one's
  int64_t last_unit = 0;   // and at most this from the first one's
  unsigned char* stages;   // [kStages, kRows, kStageBytes]

  // A place in the stream of chunks.
  struct Place {
    int32_t unit, chunk, stage;
    int64_t offset;  // of the unit's rows

    __device__ __forceinline__ void advance(const FewRows& rows) {
      stage = stage + 1 == kStages ? 0 : stage + 1;
      if (++chunk < rows.chunks) return;
      chunk = 0;
      ++unit;
      offset += rows.unit_bytes;
      if (offset > rows.last_unit) offset = rows.last_unit;
    }
  };

  // The share of warp `warp` of the block, of the `ways` that share its rows of `cols` weights.
  __device__ __forceinline__ void set_share(int warp, int ways, int64_t cols) {
    row_bytes = cols / F::kBlock * F::kBlockBytes;
    first_chunk = warp % ways;
    chunk_step = ways;
    chunks = (static_cast<int32_t>(divide_up(cols, F::kChunk)) - first_chunk + ways - 1) / ways;
    stages = dynamic_shared<unsigned char>() + F::kTableBytes + warp * kWarpBytes;
  }
  __device__ __forceinline__ Place begin() const { return {chunks > 0 ? 0 : units, 0, 0, 0}; }
  __device__ __forceinline__ int32_t chunk_number(const Place& at) const {
    return first_chunk + at.chunk * chunk_step;
  }
  __device__ __forceinline__ const unsigned char* chunk_begin(int r, const Place& at) const {
    return row[r] + at.offset + chunk_number(at) * int64_t{kChunkBytes};
  }
  __device__ __forceinline__ unsigned char* stage(int r, const Place& at) const {
    return stages + (at.stage * kRows + r) * kStageBytes;
  }
  // Past the last chunk there is nothing to fetch, but still to be waited for.
  __device__ __forceinline__ void fetch(const Place& at) const {
    if (at.unit < units) {
      const int64_t left = row_bytes - chunk_number(at) * int64_t{kChunkBytes};
      const int bytes = static_cast<int>(left < kChunkBytes ? left : kChunkBytes);
      HEARTH_UNROLL
      for (int r = 0; r < kRows; ++r) fetch_bytes(stage(r, at), chunk_begin(r, at), bytes);
    }
    commit_copies();
  }
  __device__ __forceinline__ const unsigned char* fetched(int r, const Place& at) const {
    return stage(r, at) + (reinterpret_cast<uintptr_t>(chunk_begin(r, at)) & 15);
  }
};

// What of the activations meets a lane's pieces of a chunk.
template <typename F, int kTokens>
struct FewInputs {
  static constexpr int kPieces = F::kChunk / F::kPiece / kWarpLanes;
  // Whether registers hold them: then they come while the chunk is still on its way.
  static constexpr bool kIsAhead = kPieces * kTokens <= 2;
  typename F::Input of[kIsAhead ? kPieces : 1][kIsAhead ? kTokens : 1];

  static __device__ __forceinline__ int32_t column(int32_t chunk_column, int piece) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    return chunk_column + (lane + piece * kWarpLanes) * F::kPiece;
  }
  __device__ __forceinline__ void load(const GpuMatmulParams& p, const int64_t (&x_rows)[kTokens],
                                       int32_t chunk_column) {
    HEARTH_UNROLL
    for (int i = 0; i < kPieces; ++i) {
      if (column(chunk_column, i) >= p.w.cols) break;
      HEARTH_UNROLL
      for (int t = 0; t < kTokens; ++t) of[i][t] = F::load(p, x_rows[t], column(chunk_column, i));
    }
  }
};

template <typename F, int kTokens, int kRows>
__device__ __forceinline__ void multiply_chunk(const GpuMatmulParams& p,
                                               const FewRows<F, kRows>& rows,
                                               const typename FewRows<F, kRows>::Place& at,
                                               const int64_t (&x_rows)[kTokens],
                                               const FewInputs<F, kTokens>& inputs,
                                               float (&sums)[kRows][kTokens]) {
  using Inputs = FewInputs<F, kTokens>;
  const int32_t chunk_column = rows.chunk_number(at) * F::kChunk;
  HEARTH_UNROLL
  for (int i = 0; i < Inputs::kPieces; ++i) {
    const int32_t column = Inputs::column(chunk_column, i);
    if (column >= p.w.cols) break;
    const int number = static_cast<int>(threadIdx.x % kWarpLanes) + i * kWarpLanes;
    typename F::Piece pieces[kRows];
    HEARTH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      pieces[r] = F::unpack(rows.fetched(r, at), number);
      F::cut(pieces[r], p.w.cols - column);
    }
    HEARTH_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      typename F::Input input;
      if constexpr (Inputs::kIsAhead) {
        input = inputs.of[i][t];
      } else {
        input = F::load(p, x_rows[t], column);
      }
      HEARTH_UNROLL
      for (int r = 0; r < kRows; ++r) sums[r][t] = F::multiply(pieces[r], input, sums[r][t]);
    }
  }
}

// The dot products of a warp's share of its units with rows of x, which `p` says how to read: calls
// done(unit, sums) for each, where every lane has a part of the sums. All threads of the block come
// here, those without units too.
template <typename F, int kTokens, int kRows, typename Done>
__device__ __forceinline__ void multiply_units(const GpuMatmulParams& p,
                                               const FewRows<F, kRows>& rows,
                                               const int64_t (&x_rows)[kTokens], Done done) {
  using Rows = FewRows<F, kRows>;
  typename Rows::Place fetching = rows.begin();
  for (int i = 0; i < Rows::kStages; ++i) {
    rows.fetch(fetching);
    fetching.advance(rows);
  }
  if constexpr (F::kTableBytes > 0) {
    F::load_table();
    __syncthreads();
  }
  float sums[kRows][kTokens] = {};
  for (typename Rows::Place at = rows.begin(); at.unit < rows.units; at.advance(rows)) {
    FewInputs<F, kTokens> inputs{};  // the last pieces of a row may be no pieces
    if constexpr (FewInputs<F, kTokens>::kIsAhead) {
      inputs.load(p, x_rows, rows.chunk_number(at) * F::kChunk);
    }
    wait_copies<Rows::kStages - 1>();
    __syncwarp();  // what the other lanes fetched is there
    multiply_chunk<F, kTokens, kRows>(p, rows, at, x_rows, inputs, sums);
    __syncwarp();  // and nobody reads it any more
    rows.fetch(fetching);
    fetching.advance(rows);
    if (at.chunk + 1 < rows.chunks) continue;
    done(at.unit, sums);
    HEARTH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      HEARTH_UNROLL
      for (int t = 0; t < kTokens; ++t) sums[r][t] = 0;
    }
  }
}

// The same for one unit; sums stay 0 where there is none.
template <typename F, int kTokens, int kRows>
__device__ __forceinline__ void multiply_share(const GpuMatmulParams& p,
                                               const FewRows<F, kRows>& rows,
                                               const int64_t (&x_rows)[kTokens],
                                               float (&sums)[kRows][kTokens]) {
  multiply_units<F, kTokens, kRows>(p, rows, x_rows,
                                    [&](int32_t, const float(&parts)[kRows][kTokens]) {
                                      for (int r = 0; r < kRows; ++r) {
                                        for (int t = 0; t < kTokens; ++t) sums[r][t] = parts[r][t];
                                      }
                                    });
}

// The parts of all lanes together: calls store(r, t, sum), each sum in one lane.
template <int kTokens, int kRows, typename Store>
__device__ __forceinline__ void reduce_lanes(const float (&sums)[kRows][kTokens], Store store) {
  constexpr int kCount = kRows * kTokens, kLanes = kWarpLanes / kCount;
  float values[kCount];
  HEARTH_UNROLL
  for (int i = 0; i < kCount; ++i) values[i] = sums[i / kTokens][i % kTokens];
  const float sum = sum_lanes(values);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, i = lane / kLanes;
  if (lane % kLanes == 0) store(i / kTokens, i % kTokens, sum);
}

// To where the block's warps put what they have.
template <int kTokens, int kRows>
__device__ __forceinline__ void add_lanes(const float (&sums)[kRows][kTokens],
                                          float (&out)[kRows][kTokens]) {
  reduce_lanes<kTokens, kRows>(sums, [&](int r, int t, float sum) { out[r][t] = sum; });
}

// One of the matrices of a launch.
struct FewPart {
  const unsigned char* data;
  const int32_t* x_rows;
  const int32_t* y_rows;
  float* y;
  int64_t y_stride;
  int32_t rows;
  int32_t ways;         // warps that share a row
  int32_t first_block;  // its blocks follow those of the part before
  int32_t step;         // from a warp's row to the one of its next unit
};

struct FewParams {
  GpuMatmulParams x;  // what the parts have in common
  int64_t row_bytes;
  int32_t count;
  FewPart parts[kGpuMatmulsMax];
};

__device__ __forceinline__ void store_product(const FewPart& part, int64_t n, int64_t token,
                                              int32_t row, float value) {
  if (token >= n || row >= part.rows) return;
  part.y[(part.y_rows != nullptr ? part.y_rows[token] : token) * part.y_stride + row] = value;
}

template <typename F, int kTokens, int kRows>
__global__ void __launch_bounds__(kBlockThreads, kTokens == 1 ? 4 : 2) few_kernel(FewParams few) {
  __shared__ float partial[kFewWarps][kRows][kTokens];
  const auto block = static_cast<int32_t>(blockIdx.x);
  int number = 0;
  while (number + 1 < few.count && block >= few.parts[number + 1].first_block) ++number;
  const FewPart& part = few.parts[number];
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int groups = kFewWarps / part.ways;  // of warps with the same rows
  const int32_t block_row = (block - part.first_block) * groups * kRows;
  const int32_t own_row = block_row + warp / part.ways * kRows;
  const int64_t first_token = static_cast<int64_t>(blockIdx.y) * kTokens;

  // The last unit ends with the last row: where rows are odd it has some that others have too. A
  // second row of none and tokens past the last are the last ones again and are not written.
  const int32_t last = part.rows > kRows ? part.rows - kRows : 0;
  const auto unit_row = [&](int32_t row) { return row < last ? row : last; };
  const int32_t first_row = unit_row(own_row);
  FewRows<F, kRows> rows;
  rows.set_share(warp, part.ways, few.x.w.cols);
  for (int r = 0; r < kRows; ++r) {
    rows.row[r] = part.data + (r < part.rows ? first_row + r : first_row) * few.row_bytes;
  }
  rows.units = own_row < part.rows ? (part.rows - own_row + part.step - 1) / part.step : 0;
  rows.unit_bytes = part.step * few.row_bytes;
  rows.last_unit = (last - first_row) * few.row_bytes;
  int64_t x_rows[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    const int64_t token = first_token + t < few.x.n ? first_token + t : few.x.n - 1;
    x_rows[t] = part.x_rows != nullptr ? part.x_rows[token] : token;
  }

  multiply_units<F, kTokens, kRows>(
      few.x, rows, x_rows, [&](int32_t unit, const float(&sums)[kRows][kTokens]) {
        if (part.ways > 1) return add_lanes<kTokens, kRows>(sums, partial[warp]);
        const int32_t row = unit_row(own_row + unit * part.step);
        reduce_lanes<kTokens, kRows>(sums, [&](int r, int t, float sum) {
          store_product(part, few.x.n, first_token + t, row + r, sum);
        });
      });
  if (part.ways == 1) return;
  __syncthreads();
  for (int i = threadIdx.x; i < groups * kRows * kTokens; i += kBlockThreads) {
    const int r = i % kRows, group = i / kRows % groups, t = i / kRows / groups;
    if (block_row + group * kRows >= part.rows) continue;
    float sum = 0;
    for (int w = 0; w < part.ways; ++w) sum += partial[group * part.ways + w][r][t];
    store_product(part, few.x.n, first_token + t, unit_row(block_row + group * kRows) + r, sum);
  }
}

// Blocks of each part: for all its units at once, or, where that is more than the device holds and
// no warps share rows, as large a part of the device as it is of the units.
template <typename F, int kTokens, int kRows>
void launch_few(FewParams& few, GpuStream stream) {
  constexpr auto kKernel = few_kernel<F, kTokens, kRows>;
  constexpr size_t kShared = FewRows<F, kRows>::kSharedBytes;
  static_assert(kShared <= kSharedLeast);
  static const int64_t at_once = blocks_at_once(kKernel, kBlockThreads, kShared);
  const auto blocks_for = [](const FewPart& part) {
    return divide_up(divide_up(part.rows, kRows) * part.ways, kFewWarps);
  };
  int64_t wanted = 0, blocks = 0;
  for (int32_t i = 0; i < few.count; ++i) wanted += blocks_for(few.parts[i]);
  for (int32_t i = 0; i < few.count; ++i) {
    FewPart& part = few.parts[i];
    int64_t own = blocks_for(part);
    if (part.ways == 1 && wanted > at_once) own = divide_up(own * at_once, wanted);
    part.first_block = static_cast<int32_t>(blocks);
    part.step = static_cast<int32_t>(own) * (kFewWarps / part.ways) * kRows;
    blocks += own;
  }
  const dim3 grid(static_cast<uint32_t>(blocks),
                  static_cast<uint32_t>(divide_up(few.x.n, kTokens)));
  launch(kKernel, {grid, kBlockThreads, kShared}, stream, few);
}

// How many warps share a row does not depend on the tokens nor on the other products, and so
// neither does a result.
template <typename F>
void multiply_few(const GpuMatmulParams* products, int32_t count, GpuStream stream) {
  FewParams few = {products[0], products[0].w.cols / F::kBlock * F::kBlockBytes, 0, {}};
  HEARTH_CHECK(few.x.w.cols % F::kBlock == 0);
  const int64_t chunks = divide_up(few.x.w.cols, F::kChunk);
  int64_t warps = 0;
  for (int32_t i = 0; i < count; ++i) {
    const GpuMatmulParams& p = products[i];
    if (p.w.rows == 0) continue;
    int32_t ways = 1;
    while (ways < kFewWarps && 2 * ways <= chunks && ways * p.w.rows < kFewWarpsWanted) ways *= 2;
    few.parts[few.count++] = {
        p.w.data, p.x_rows, p.y_rows, p.y, p.y_stride, static_cast<int32_t>(p.w.rows), ways, 0, 0};
    warps += ways * p.w.rows;
  }
  const int64_t n = few.x.n;
  if (few.count == 0 || n == 0) return;
  // Two rows a warp read activations once for both, if there are enough of them.
  if (n == 1 && warps < kFewWarpsWanted) return launch_few<F, 1, 1>(few, stream);
  if (n == 1) return launch_few<F, 1, 2>(few, stream);
  if (n == 2) return launch_few<F, 2, 2>(few, stream);
  if (n <= 4) return launch_few<F, 4, 2>(few, stream);
  launch_few<F, kFewTokensMax, 2>(few, stream);
}

}  // namespace hearth::HEARTH_GPU
