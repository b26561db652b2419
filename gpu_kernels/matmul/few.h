// Products of a matrix, as it is stored, with few tokens: the work is to read the weights once. A
// warp takes one row or two, for up to eight tokens. Chunks of a row go to shared memory in aligned
// units of 16 bytes, several chunks on their way while one is multiplied, so blocks of 17 or 34
// bytes cost no more than others and the memory always has requests waiting. Matrices of few rows
// have several warps on a row, each with every so many-th chunk.
#pragma once

#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/matmul/unpack.h"

namespace hearth::HEARTH_GPU {

constexpr int kFewWarps = kBlockThreads / kWarpLanes;
constexpr int kFewTokensMax = 8;
constexpr int64_t kFewWarpsWanted = 8192;  // four waves of the warps that a large GPU holds
constexpr int kFewFetched = 4;             // chunks a warp has fetched or on their way

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

// The rows of one warp, and its share of their chunks.
template <typename F, int kRows>
struct FewRows {
  static constexpr int kChunkBytes = F::kChunk / F::kBlock * F::kBlockBytes;
  // Its place within 16 bytes before it, a word read past it behind it.
  static constexpr int kStageBytes = (15 + kChunkBytes + 4 + 15) / 16 * 16;
  static constexpr int kStages = kFewFetched / kRows;
  static constexpr int kSharedBytes = F::kTableBytes + kFewWarps * kFewFetched * kStageBytes;

  const unsigned char* row[kRows];  // set by the caller
  int64_t row_bytes;
  int64_t first_chunk, chunk_step, chunks;  // `chunks` of them, `chunk_step` apart
  unsigned char* stages;                    // [kStages, kRows, kStageBytes]

  // The share of warp `warp` of the block, of the `ways` that share its rows of `cols` weights.
  __device__ __forceinline__ void set_share(int warp, int ways, int64_t cols) {
    row_bytes = cols / F::kBlock * F::kBlockBytes;
    first_chunk = warp % ways;
    chunk_step = ways;
    chunks = divide_up(divide_up(cols, F::kChunk) - first_chunk, ways);
    stages = dynamic_shared<unsigned char>() + F::kTableBytes + warp * (kFewFetched * kStageBytes);
  }
  __device__ __forceinline__ const unsigned char* chunk_begin(int r, int64_t number) const {
    return row[r] + (first_chunk + number * chunk_step) * kChunkBytes;
  }
  __device__ __forceinline__ unsigned char* stage(int r, int64_t number) const {
    return stages + (number % kStages * kRows + r) * kStageBytes;
  }
  __device__ __forceinline__ void fetch(int64_t number) const {
    HEARTH_UNROLL
    for (int r = 0; r < kRows && number < chunks; ++r) {
      const unsigned char* from = chunk_begin(r, number);
      const int64_t left = row[r] + row_bytes - from;
      fetch_bytes(stage(r, number), from,
                  static_cast<int>(left < kChunkBytes ? left : kChunkBytes));
    }
    commit_copies();
  }
  __device__ __forceinline__ const unsigned char* fetched(int r, int64_t number) const {
    return stage(r, number) + (reinterpret_cast<uintptr_t>(chunk_begin(r, number)) & 15);
  }
};

template <typename F, int kTokens, int kRows>
__device__ __forceinline__ void multiply_chunk(const GpuMatmulParams& p,
                                               const FewRows<F, kRows>& rows, int64_t number,
                                               const int64_t (&x_rows)[kTokens],
                                               float (&sums)[kRows][kTokens]) {
  const int64_t chunk_column = (rows.first_chunk + number * rows.chunk_step) * F::kChunk;
  HEARTH_UNROLL
  for (int i = 0; i < F::kChunk / F::kPiece / kWarpLanes; ++i) {
    const int number_in_chunk = static_cast<int>(threadIdx.x % kWarpLanes) + i * kWarpLanes;
    const int64_t column = chunk_column + number_in_chunk * F::kPiece;
    if (column >= p.w.cols) break;
    typename F::Piece pieces[kRows];
    HEARTH_UNROLL
    for (int r = 0; r < kRows; ++r) {
      pieces[r] = F::unpack(rows.fetched(r, number), number_in_chunk);
      F::cut(pieces[r], p.w.cols - column);
    }
    HEARTH_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const typename F::Input input = F::load(p, x_rows[t], column);
      HEARTH_UNROLL
      for (int r = 0; r < kRows; ++r) sums[r][t] = F::multiply(pieces[r], input, sums[r][t]);
    }
  }
}

// The dot products of a warp's share of its rows with rows of x, which `p` says how to read; each
// lane has a part of each. All threads of the block come here, those without chunks too.
template <typename F, int kTokens, int kRows>
__device__ __forceinline__ void multiply_share(const GpuMatmulParams& p,
                                               const FewRows<F, kRows>& rows,
                                               const int64_t (&x_rows)[kTokens],
                                               float (&sums)[kRows][kTokens]) {
  for (int i = 0; i < rows.kStages; ++i) rows.fetch(i);
  if constexpr (F::kTableBytes > 0) {
    F::load_table();
    __syncthreads();
  }
  for (int64_t i = 0; i < rows.chunks; ++i) {
    wait_copies<FewRows<F, kRows>::kStages - 1>();
    __syncwarp();  // what the other lanes fetched is there
    multiply_chunk<F, kTokens, kRows>(p, rows, i, x_rows, sums);
    __syncwarp();  // and nobody reads it any more
    rows.fetch(i + rows.kStages);
  }
}

// The parts of all lanes together, where the block's warps put what they have.
template <int kTokens, int kRows>
__device__ __forceinline__ void add_lanes(const float (&sums)[kRows][kTokens],
                                          float (&out)[kRows][kTokens]) {
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      const float sum = warp_sum(sums[r][t]);
      if (threadIdx.x % kWarpLanes == 0) out[r][t] = sum;
    }
  }
}

struct FewParams {
  GpuMatmulParams matmul;
  int64_t row_bytes;
  int32_t ways;  // warps that share a row
};

template <typename F, int kTokens, int kRows>
__global__ void __launch_bounds__(kBlockThreads) few_kernel(FewParams few) {
  __shared__ float partial[kFewWarps][kRows][kTokens];
  const GpuMatmulParams& p = few.matmul;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int groups = kFewWarps / few.ways;  // of warps with the same rows
  const int64_t group_row = (static_cast<int64_t>(blockIdx.x) * groups + warp / few.ways) * kRows;
  const int64_t first_token = static_cast<int64_t>(blockIdx.y) * kTokens;

  // A row or token past the last is the last one again; it is not written.
  FewRows<F, kRows> rows;
  for (int r = 0; r < kRows; ++r) {
    rows.row[r] =
        p.w.data + (group_row + r < p.w.rows ? group_row + r : p.w.rows - 1) * few.row_bytes;
  }
  rows.set_share(warp, few.ways, p.w.cols);
  if (group_row >= p.w.rows) rows.chunks = 0;
  int64_t x_rows[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    const int64_t token = first_token + t < p.n ? first_token + t : p.n - 1;
    x_rows[t] = p.x_rows != nullptr ? p.x_rows[token] : token;
  }

  float sums[kRows][kTokens] = {};
  multiply_share<F, kTokens, kRows>(p, rows, x_rows, sums);
  add_lanes<kTokens, kRows>(sums, partial[warp]);
  __syncthreads();
  for (int i = threadIdx.x; i < groups * kRows * kTokens; i += kBlockThreads) {
    const int r = i % kRows, group = i / kRows % groups, t = i / kRows / groups;
    const int64_t row = (static_cast<int64_t>(blockIdx.x) * groups + group) * kRows + r,
                  token = first_token + t;
    if (row >= p.w.rows || token >= p.n) continue;
    float sum = 0;
    for (int w = 0; w < few.ways; ++w) sum += partial[group * few.ways + w][r][t];
    p.y[(p.y_rows != nullptr ? p.y_rows[token] : token) * p.y_stride + row] = sum;
  }
}

template <typename F, int kTokens, int kRows>
void launch_few(const FewParams& few, GpuStream stream) {
  const int64_t block_rows = kFewWarps / few.ways * kRows;
  const dim3 grid(static_cast<uint32_t>(divide_up(few.matmul.w.rows, block_rows)),
                  static_cast<uint32_t>(divide_up(few.matmul.n, kTokens)));
  launch(few_kernel<F, kTokens, kRows>, {grid, kBlockThreads, FewRows<F, kRows>::kSharedBytes},
         stream, few);
}

// How many warps share a row does not depend on the tokens, and so neither does a result.
template <typename F>
void multiply_few(const GpuMatmulParams& p, GpuStream stream) {
  HEARTH_CHECK(p.w.cols % F::kBlock == 0);
  FewParams few = {p, p.w.cols / F::kBlock * F::kBlockBytes, 1};
  const int64_t chunks = divide_up(p.w.cols, F::kChunk);
  while (few.ways < kFewWarps && 2 * few.ways <= chunks && few.ways * p.w.rows < kFewWarpsWanted)
    few.ways *= 2;
  if (p.n == 1) return launch_few<F, 1, 1>(few, stream);
  if (p.n == 2) return launch_few<F, 2, 2>(few, stream);
  if (p.n <= 4) return launch_few<F, 4, 2>(few, stream);
  launch_few<F, kFewTokensMax, 2>(few, stream);
}

}  // namespace hearth::HEARTH_GPU
