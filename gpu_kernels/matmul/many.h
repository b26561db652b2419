// Products of a matrix, as it is stored, with many tokens, on tensor cores: both sides rounded to
// bfloat16, sums in float32. A block makes a tile of 128 rows by 32 or 128 tokens, 64 columns a
// step. Stored weights arrive in shared memory in aligned units of 16 bytes, are unpacked for the
// next step into a tile of bfloat16s while the tile of this one is multiplied, and what the step
// after next needs is on its way meanwhile.
//
// What is multiplied an Op says, from the side of one block:
//   find<kTokens>(part)      the block's part of the work, as Op::Part, or that it has none
//   cols(), row_bytes        of all matrices
//   bfloat16s()              [.., cols] activations
//   stored_row(part, row)    the weights of the tile's row; past the last those of the last one
//   x_row(part, token)       the row of activations of the tile's token; past the last the same
//   result(part, token)      where the token's results go, null past the last
//   store(to, part, row, low, high)   the sums of the tile's rows `row` and `row` + 8
//
// Tiles have 128 bytes a row. A unit of 16 bytes lies at its place xor the row's lowest three bits,
// so that eight rows' units of one column, which a matrix load reads together, are in all banks.
#pragma once

#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/matmul/unpack.h"

namespace hearth::HEARTH_GPU {

constexpr int kManyRows = 128, kManyStep = 64;
constexpr int kManyTokens = 128, kManyTokensLeast = 32;  // of a tile
constexpr int kTileRowBytes = 2 * kManyStep, kTileRowUnits = kTileRowBytes / 16;
constexpr int kManyWarps = kBlockThreads / kWarpLanes;
constexpr int kPieceColumns = kManyRows * kManyStep / static_cast<int>(kBlockThreads);
constexpr int kWarpRawRows = kManyRows / kManyWarps;  // whose weights a warp fetches and unpacks

__device__ __forceinline__ int unit_offset(int row, int unit) {
  return row * kTileRowBytes + 16 * (unit ^ (row & 7));
}

template <typename F, int kTokens>
struct ManyTile {
  // Stored weights are fetched in whole blocks.
  static constexpr int kColumns = F::kBlock > kManyStep ? F::kBlock : kManyStep;
  static constexpr int kChunkSteps = kColumns / kManyStep;
  static constexpr int kBytes = kColumns / F::kBlock * F::kBlockBytes;
  // Their place within 16 bytes before them, a word read past them behind; an odd number of units,
  // so that lanes with rows of their own meet in few banks.
  static constexpr int kRawBytes = (15 + kBytes + 4 + 15) / 16 * 16 | 16;

  static constexpr int kWarpsAcross = kTokens > 64 ? kTokens / 64 : 1;
  static constexpr int kWarpTokens = kTokens / kWarpsAcross;
  static constexpr int kWarpRows = kManyRows * kWarpsAcross / kManyWarps;
  static constexpr int kRowTiles = kWarpRows / 16, kTokenTiles = kWarpTokens / 8;
  static constexpr int kTokenUnits = kTokens * kTileRowUnits / static_cast<int>(kBlockThreads);

  // Of the shared memory; two tiles each of weights and tokens.
  static constexpr int kWeightsBytes = kManyRows * kTileRowBytes;
  static constexpr int kTokensBytes = kTokens * kTileRowBytes;
  static constexpr int kTokensAt = F::kTableBytes + 2 * kWeightsBytes;
  static constexpr int kRawAt = kTokensAt + 2 * kTokensBytes;
  static constexpr int kSharedBytes = kRawAt + kManyRows * kRawBytes;
};

// A block's tile, from one thread's side.
template <typename F, typename Op, int kTokens>
struct ManyBlock {
  using Tile = ManyTile<F, kTokens>;
  using Sums = float[Tile::kRowTiles][Tile::kTokenTiles][4];

  const Op& op;
  const typename Op::Part& part;
  int32_t x_rows[Tile::kTokenUnits];  // whose units this thread fetches
  uint32_t own_place;                 // the lowest bits of where the row that it unpacks begins
  unsigned char* shared = dynamic_shared<unsigned char>();
  int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  int lane = static_cast<int>(threadIdx.x) % kWarpLanes;

  __device__ __forceinline__ ManyBlock(const Op& whole, const typename Op::Part& own)
      : op(whole), part(own) {
    HEARTH_UNROLL
    for (int i = 0; i < Tile::kTokenUnits; ++i) x_rows[i] = op.x_row(part, token_of_unit(i));
    own_place = static_cast<uint32_t>(
        reinterpret_cast<uintptr_t>(op.stored_row(part, static_cast<int>(threadIdx.x) / 2)) & 15);
  }

  __device__ __forceinline__ int token_of_unit(int i) const {
    return (static_cast<int>(threadIdx.x) + i * static_cast<int>(kBlockThreads)) / kTileRowUnits;
  }
  __device__ __forceinline__ const unsigned char* raw_begin(int row, int chunk) const {
    return op.stored_row(part, row) + int64_t{chunk} * Tile::kBytes;
  }
  __device__ __forceinline__ unsigned char* weights(int step) const {
    return shared + F::kTableBytes + step % 2 * Tile::kWeightsBytes;
  }
  __device__ __forceinline__ unsigned char* activations(int step) const {
    return shared + Tile::kTokensAt + step % 2 * Tile::kTokensBytes;
  }

  // The stored weights that `step` begins to read, of the rows of this warp.
  __device__ __forceinline__ void fetch_weights(int step) const {
    if (step * kManyStep >= op.cols() || step % Tile::kChunkSteps != 0) return;
    constexpr int kUnits = Tile::kRawBytes / 16;
    const int chunk = step / Tile::kChunkSteps;
    const int64_t left = op.row_bytes - int64_t{chunk} * Tile::kBytes;
    const int bytes = left < Tile::kBytes ? static_cast<int>(left) : Tile::kBytes;
    HEARTH_NO_UNROLL  // the places of all units at once would take too many registers
        for (int i = lane; i < kWarpRawRows * kUnits; i += kWarpLanes) {
      const int row = warp * kWarpRawRows + i / kUnits, at = 16 * (i % kUnits);
      const unsigned char* from = raw_begin(row, chunk);
      const int before = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15);
      if (at < before + bytes) {
        copy16_async(shared + Tile::kRawAt + row * Tile::kRawBytes + at, from - before + at);
      }
    }
  }

  // Columns past the last are zeros, of the weights too: what lies there may be NaN.
  __device__ __forceinline__ void fetch_tokens(int step) const {
    const int unit = static_cast<int>(threadIdx.x) % kTileRowUnits;
    const int column = step * kManyStep + 8 * unit;
    HEARTH_UNROLL
    for (int i = 0; i < Tile::kTokenUnits; ++i) {
      unsigned char* to = activations(step) + unit_offset(token_of_unit(i), unit);
      if (column < op.cols()) {
        copy16_async(to, op.bfloat16s() + x_rows[i] * op.cols() + column);
      } else {
        *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
      }
    }
  }

  // Two threads a row, 32 columns each.
  __device__ __forceinline__ void unpack(int step) const {
    const int row = static_cast<int>(threadIdx.x) / 2, half = static_cast<int>(threadIdx.x) % 2;
    const int column = step * kManyStep + half * kPieceColumns;
    uint32_t pairs[kPieceColumns / 2] = {};
    if (column < op.cols()) {
      const int chunk = column / Tile::kColumns;
      const unsigned char* raw = shared + Tile::kRawAt + row * Tile::kRawBytes +
                                 ((own_place + static_cast<uint32_t>(chunk * Tile::kBytes)) & 15);
      const int first = column % Tile::kColumns / F::kPiece;
      HEARTH_UNROLL
      for (int i = 0; i < kPieceColumns / F::kPiece; ++i) {
        F::round(F::unpack(raw, first + i), pairs + i * F::kPiece / 2);
      }
    }
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) {
      unsigned char* to = weights(step) + unit_offset(row, half * 4 + i);
      *reinterpret_cast<uint4*>(to) =
          make_uint4(pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
    }
  }

  __device__ __forceinline__ int warp_row() const {
    return warp / Tile::kWarpsAcross * Tile::kWarpRows;
  }
  __device__ __forceinline__ int warp_token() const {
    return warp % Tile::kWarpsAcross * Tile::kWarpTokens;
  }

  __device__ __forceinline__ void multiply(int step, Sums& sums) const {
    // Rows 8 apart have their units in the same order, and a column's lowest bit is the lane's: the
    // rest of a place is known when this is compiled.
    const unsigned char *w = weights(step), *x = activations(step);
    const int w_at = unit_offset(warp_row() + lane % 16, lane / 16);
    const int x_at = unit_offset(warp_token() + lane % 8 + lane / 16 * 8, lane / 8 % 2);
    HEARTH_UNROLL
    for (int k = 0; k < kTileRowUnits; k += 2) {
      uint32_t a[Tile::kRowTiles][4];
      HEARTH_UNROLL
      for (int r = 0; r < Tile::kRowTiles; ++r) {
        load_matrices(a[r], w + (w_at ^ 16 * k) + 16 * r * kTileRowBytes);
      }
      HEARTH_UNROLL
      for (int t = 0; t < Tile::kTokenTiles; t += 2) {
        uint32_t b[4];  // of two tiles of tokens, the first and the last eight columns of each
        load_matrices(b, x + (x_at ^ 16 * k) + 8 * t * kTileRowBytes);
        HEARTH_UNROLL
        for (int r = 0; r < Tile::kRowTiles; ++r) {
          multiply_matrices(sums[r][t], a[r], b[0], b[1]);
          multiply_matrices(sums[r][t + 1], a[r], b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void store(const Sums& sums) const {
    HEARTH_UNROLL
    for (int i = 0; i < 2 * Tile::kTokenTiles; ++i) {
      auto* to = op.result(part, warp_token() + i / 2 * 8 + lane % 4 * 2 + i % 2);
      if (to == nullptr) continue;
      HEARTH_UNROLL
      for (int r = 0; r < Tile::kRowTiles; ++r) {
        const float(&of_tile)[4] = sums[r][i / 2];
        op.store(to, part, warp_row() + 16 * r + lane / 4, of_tile[i % 2], of_tile[2 + i % 2]);
      }
    }
  }
};

template <typename F, typename Op, int kTokens>
__global__ void __launch_bounds__(kBlockThreads, 2) many_kernel(Op op) {
  typename Op::Part part;
  if (!op.template find<kTokens>(part)) return;
  const ManyBlock<F, Op, kTokens> block(op, part);
  typename ManyBlock<F, Op, kTokens>::Sums sums = {};
  const int steps = static_cast<int>(divide_up(op.cols(), kManyStep));

  block.fetch_weights(0);
  block.fetch_tokens(0);
  commit_copies();
  if constexpr (F::kTableBytes > 0) F::load_table();
  wait_copies<0>();
  __syncthreads();
  block.unpack(0);
  __syncwarp();  // the warp has read its stored weights
  block.fetch_weights(1);
  commit_copies();

  for (int step = 0; step < steps; ++step) {
    wait_copies<0>();
    __syncthreads();  // this step's tiles are there, and nobody reads the other ones any more
    if (step + 1 < steps) {
      block.unpack(step + 1);
      __syncwarp();
      block.fetch_weights(step + 2);
      block.fetch_tokens(step + 1);
      commit_copies();
    }
    block.multiply(step, sums);
  }
  block.store(sums);
}

// Blocks that start together share weights: tiles of tokens come first.
template <typename F, typename Op, int kTokens>
void launch_many(const Op& op, int64_t token_tiles, int64_t row_tiles, GpuStream stream) {
  const dim3 grid(static_cast<uint32_t>(token_tiles), static_cast<uint32_t>(row_tiles));
  launch(many_kernel<F, Op, kTokens>, {grid, kBlockThreads, ManyTile<F, kTokens>::kSharedBytes},
         stream, op);
}

// One matrix, tokens as they come or as lists name them.
struct ManyMatmul {
  struct Part {
    int64_t first_row, first_token;
  };
  GpuMatmulParams p;
  int64_t row_bytes;

  template <int kTokens>
  __device__ __forceinline__ bool find(Part& part) const {
    part = {static_cast<int64_t>(blockIdx.y) * kManyRows,
            static_cast<int64_t>(blockIdx.x) * kTokens};
    return true;
  }
  __device__ __forceinline__ int64_t cols() const { return p.w.cols; }
  __device__ __forceinline__ const uint16_t* bfloat16s() const { return p.bfloat16s; }
  __device__ __forceinline__ const unsigned char* stored_row(const Part& part, int row) const {
    const int64_t wanted = part.first_row + row;
    return p.w.data + (wanted < p.w.rows ? wanted : p.w.rows - 1) * row_bytes;
  }
  __device__ __forceinline__ int32_t x_row(const Part& part, int token) const {
    const int64_t wanted = part.first_token + token, there = wanted < p.n ? wanted : p.n - 1;
    return p.x_rows != nullptr ? p.x_rows[there] : static_cast<int32_t>(there);
  }
  __device__ __forceinline__ float* result(const Part& part, int token) const {
    const int64_t own = part.first_token + token;
    if (own >= p.n) return nullptr;
    return p.y + (p.y_rows != nullptr ? p.y_rows[own] : own) * p.y_stride;
  }
  __device__ __forceinline__ void store(float* y, const Part& part, int row, float low,
                                        float high) const {
    const int64_t own = part.first_row + row;
    if (own < p.w.rows) y[own] = low;
    if (own + 8 < p.w.rows) y[own + 8] = high;
  }
};

template <typename F>
void multiply_many(const GpuMatmulParams& p, GpuStream stream) {
  HEARTH_CHECK(p.w.cols % F::kBlock == 0);
  const ManyMatmul op = {p, p.w.cols / F::kBlock * F::kBlockBytes};
  const int64_t row_tiles = divide_up(p.w.rows, kManyRows);
  if (p.n <= kManyTokensLeast) {
    launch_many<F, ManyMatmul, kManyTokensLeast>(op, 1, row_tiles, stream);
  } else {
    launch_many<F, ManyMatmul, kManyTokens>(op, divide_up(p.n, kManyTokens), row_tiles, stream);
  }
}

}  // namespace hearth::HEARTH_GPU
