// Products of a matrix, as it is stored, with many tokens, on tensor cores: both sides rounded to
// bfloat16, sums in float32. A block makes a tile of 128 rows by 32, 128 or 256 tokens, 64 columns
// a step. Stored weights arrive in shared memory in aligned units of 16 bytes and are unpacked for
// the next step into a tile of bfloat16s, between the products of this step and by the same warps.
// What is multiplied next is read into registers while tensor cores are busy, across the one
// barrier that a step has too. Weights that are bfloat16s as stored are copied into their tile.
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
constexpr int kManyTokens = 128, kManyTokensLeast = 32, kManyTokensMost = 256;  // of a tile
constexpr int kTileRowBytes = 2 * kManyStep, kTileRowUnits = kTileRowBytes / 16;
constexpr int kFetchParts = 2;     // of what is fetched at a time, products between them
constexpr int kMultiplyParts = 4;  // of products, with what is fetched between them
constexpr int kManyWarps = kBlockThreads / kWarpLanes;
constexpr int kPieceColumns = kManyRows * kManyStep / static_cast<int>(kBlockThreads);
constexpr int kWarpRawRows = kManyRows / kManyWarps;  // whose weights a warp fetches and unpacks

// Tiles by their tokens: how many warps stand side by side, each with all of its tokens times a
// part of the rows; how many steps' tokens and stored weights there is room for at most; within
// what shared memory; how many blocks a processor's registers have to suffice for.
struct ManyShape {
  int warps_across, token_tiles, raw_tiles, shared_bytes, blocks;
};

template <int kTokens>
constexpr ManyShape kManyShape = {};
// Few products a weight: much has to be on its way.
template <>
constexpr ManyShape kManyShape<kManyTokensLeast> = {1, 4, 3, kSharedLeast, 2};
template <>
constexpr ManyShape kManyShape<kManyTokens> = {2, 3, 2, kSharedLeast, 1};
// A warp's 64 rows by 64 tokens: 4 KiB read from shared memory for 32 products of tensor cores.
template <>
constexpr ManyShape kManyShape<kManyTokensMost> = {4, 3, 2, kSharedMost, 1};

__device__ __forceinline__ int unit_offset(int row, int unit) {
  return row * kTileRowBytes + 16 * (unit ^ (row & 7));
}

template <typename F, int kTokens, bool kIsCopied>
struct ManyTile {
  static constexpr ManyShape kShape = kManyShape<kTokens>;

  // Stored weights are fetched in whole blocks.
  static constexpr int kColumns = F::kBlock > kManyStep ? F::kBlock : kManyStep;
  static constexpr int kChunkSteps = kColumns / kManyStep;
  static constexpr int kBytes = kColumns / F::kBlock * F::kBlockBytes;
  // Their place within 16 bytes before them, a word read past them behind; an odd number of units,
  // so that lanes with rows of their own meet in few banks.
  static constexpr int kRawRowBytes = (15 + kBytes + 4 + 15) / 16 * 16 | 16;

  static constexpr int kWarpTokens = kTokens / kShape.warps_across;
  static constexpr int kWarpRows = kManyRows * kShape.warps_across / kManyWarps;
  static constexpr int kRowTiles = kWarpRows / 16, kTokenTiles = kWarpTokens / 8;
  static constexpr int kTokenUnits = kTokens * kTileRowUnits / static_cast<int>(kBlockThreads);
  static constexpr int kWeightUnits = kManyRows * kTileRowUnits / static_cast<int>(kBlockThreads);

  static constexpr int kWeightsBytes = kManyRows * kTileRowBytes;
  static constexpr int kTokensBytes = kTokens * kTileRowBytes;
  static constexpr int kRawBytes = kIsCopied ? 0 : kManyRows * kRawRowBytes;
  static constexpr int kListBytes = (kManyRows + kTokens) * 8;

  static constexpr int shared_bytes(int token_tiles, int raw_tiles) {
    return F::kTableBytes + (kIsCopied ? token_tiles : 2) * kWeightsBytes +
           token_tiles * kTokensBytes + raw_tiles * kRawBytes + kListBytes;
  }
  // As many as there is room for.
  static constexpr int kRawTiles = [] {
    int tiles = kShape.raw_tiles;
    while (tiles > 1 && shared_bytes(2, tiles) > kShape.shared_bytes) --tiles;
    return tiles;
  }();
  static constexpr int kTokensTiles = [] {
    int tiles = kShape.token_tiles;
    while (tiles > 2 && shared_bytes(tiles, kRawTiles) > kShape.shared_bytes) --tiles;
    return tiles;
  }();
  static constexpr int kWeightsTiles = kIsCopied ? kTokensTiles : 2;

  static constexpr int kTokensAt = F::kTableBytes + kWeightsTiles * kWeightsBytes;
  static constexpr int kRawAt = kTokensAt + kTokensTiles * kTokensBytes;
  static constexpr int kListAt = kRawAt + kRawTiles * kRawBytes;
  static constexpr int kSharedBytes = kListAt + kListBytes;
  static_assert(kSharedBytes <= kShape.shared_bytes);
};

// A block's tile, from one thread's side.
template <typename F, typename Op, int kTokens, bool kIsCopied>
struct ManyBlock {
  using Tile = ManyTile<F, kTokens, kIsCopied>;
  using Sums = float[Tile::kRowTiles][Tile::kTokenTiles][4];

  // What a warp multiplies at once. Of two tiles of tokens the first and the last eight columns.
  struct Operands {
    uint32_t w[Tile::kRowTiles][4], x[Tile::kTokenTiles / 2][4];
  };

  const Op& op;
  const typename Op::Part& part;
  uint32_t own_place = 0;  // the lowest bits of where the row that this thread unpacks begins
  unsigned char* shared = dynamic_shared<unsigned char>();
  int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  int lane = static_cast<int>(threadIdx.x) % kWarpLanes;

  __device__ __forceinline__ ManyBlock(const Op& whole, const typename Op::Part& own)
      : op(whole), part(own) {
    if constexpr (!kIsCopied) {
      own_place = static_cast<uint32_t>(
          reinterpret_cast<uintptr_t>(op.stored_row(part, static_cast<int>(threadIdx.x) / 2)) & 15);
    }
  }

  __device__ __forceinline__ unsigned char* weights(int step) const {
    return shared + F::kTableBytes + step % Tile::kWeightsTiles * Tile::kWeightsBytes;
  }
  __device__ __forceinline__ unsigned char* activations(int step) const {
    return shared + Tile::kTokensAt + step % Tile::kTokensTiles * Tile::kTokensBytes;
  }
  __device__ __forceinline__ unsigned char* raw(int chunk, int row) const {
    return shared + Tile::kRawAt + chunk % Tile::kRawTiles * Tile::kRawBytes +
           row * Tile::kRawRowBytes;
  }
  // Where the tile's rows begin in memory, of weights and then of activations.
  __device__ __forceinline__ const unsigned char** places() const {
    return reinterpret_cast<const unsigned char**>(shared + Tile::kListAt);
  }
  __device__ __forceinline__ void list_places() const {
    for (int i = static_cast<int>(threadIdx.x); i < kManyRows + kTokens;
         i += static_cast<int>(kBlockThreads)) {
      places()[i] = i < kManyRows ? op.stored_row(part, i)
                                  : reinterpret_cast<const unsigned char*>(
                                        op.bfloat16s() + op.x_row(part, i - kManyRows) * op.cols());
    }
  }

  // The stored weights that `step` begins to read, of the rows of this warp: one of kFetchParts
  // parts, which together are all. Lanes of a row follow one another.
  __device__ __forceinline__ void fetch_stored(int step, int fetch_part) const {
    if (kIsCopied || step % Tile::kChunkSteps != 0) return;
    constexpr int kUnits = Tile::kRawRowBytes / 16, kRowLanes = kUnits <= 8 ? 8 : 16;
    static_assert(kUnits <= kRowLanes);
    constexpr int kRows = kWarpLanes / kRowLanes;  // at once
    constexpr int kPartRows = kWarpRawRows / kFetchParts;
    const int chunk = step / Tile::kChunkSteps, at = lane % kRowLanes * 16;
    const int64_t left = op.row_bytes - int64_t{chunk} * Tile::kBytes;
    const int bytes = left < Tile::kBytes ? static_cast<int>(left) : Tile::kBytes;
    const int first = warp * kWarpRawRows + lane / kRowLanes;
    HEARTH_UNROLL
    for (int i = fetch_part * kPartRows; i < (fetch_part + 1) * kPartRows; i += kRows) {
      const unsigned char* from = places()[first + i] + int64_t{chunk} * Tile::kBytes;
      const int before = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15);
      if (bytes > 0 && at < before + bytes) {
        copy16_async(raw(chunk, first + i) + at, from - before + at);
      }
    }
  }

  // What is multiplied as it lies in memory. Columns past the last are zeros, of the weights too:
  // what lies there may be NaN.
  template <int kCount>
  __device__ __forceinline__ void fetch_tile(int column, const unsigned char* const* rows,
                                             unsigned char* to) const {
    constexpr int kRows = static_cast<int>(kBlockThreads) / kTileRowUnits;  // at once
    const unsigned char* from[kCount];
    HEARTH_UNROLL
    for (int i = 0; i < kCount; ++i) from[i] = rows[i * kRows];
    HEARTH_UNROLL
    for (int i = 0; i < kCount; ++i) {
      copy16_or_zeros_async(to + i * kRows * kTileRowBytes, from[i] + 2 * column,
                            column < op.cols());
    }
  }
  __device__ __forceinline__ void fetch_tiles(int step, int fetch_part) const {
    const int row = static_cast<int>(threadIdx.x) / kTileRowUnits;
    const int unit = static_cast<int>(threadIdx.x) % kTileRowUnits;
    const int column = step * kManyStep + 8 * unit, at = unit_offset(row, unit);
    if constexpr (kIsCopied) {
      constexpr int kPartRows = kManyRows / kFetchParts;
      const int first = fetch_part * kPartRows;
      fetch_tile<Tile::kWeightUnits / kFetchParts>(column, places() + row + first,
                                                   weights(step) + at + first * kTileRowBytes);
    }
    constexpr int kParts = Tile::kTokenUnits < kFetchParts ? 1 : kFetchParts;
    constexpr int kPartRows = kTokens / kParts;
    if (fetch_part >= kParts) return;
    const int first = fetch_part * kPartRows;
    fetch_tile<Tile::kTokenUnits / kParts>(column, places() + kManyRows + row + first,
                                           activations(step) + at + first * kTileRowBytes);
  }

  // Two threads a row unpack 32 columns each, eight at a time: unit 0 .. 3, in turn, of `step`. A
  // piece that has more of them than one comes with the first.
  __device__ __forceinline__ void unpack(int step, int unit, typename F::Piece& piece) const {
    const int row = static_cast<int>(threadIdx.x) / 2, half = static_cast<int>(threadIdx.x) % 2;
    const int column = step * kManyStep + half * kPieceColumns + 8 * unit;
    if (8 * unit % F::kPiece == 0) {
      const int chunk = step / Tile::kChunkSteps;
      const uint32_t place = (own_place + static_cast<uint32_t>(chunk * Tile::kBytes)) & 15;
      piece = F::unpack(raw(chunk, row) + place, column % Tile::kColumns / F::kPiece);
    }
    uint32_t pairs[4];
    F::round(piece, 8 * unit % F::kPiece, pairs);
    HEARTH_UNROLL
    for (int i = 0; i < 4; ++i) pairs[i] = column < op.cols() ? pairs[i] : 0;
    *reinterpret_cast<uint4*>(weights(step) + unit_offset(row, half * 4 + unit)) =
        make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }

  __device__ __forceinline__ int warp_row() const {
    return warp / Tile::kShape.warps_across * Tile::kWarpRows;
  }
  __device__ __forceinline__ int warp_token() const {
    return warp % Tile::kShape.warps_across * Tile::kWarpTokens;
  }

  // Rows 8 apart have their units in the same order, and a column's lowest bit is the lane's: the
  // rest of a place is known when this is compiled.
  __device__ __forceinline__ void read(int step, int k, Operands& operands) const {
    const unsigned char *w = weights(step), *x = activations(step);
    const int w_at = unit_offset(warp_row() + lane % 16, lane / 16) ^ 32 * k;
    const int x_at = unit_offset(warp_token() + lane % 8 + lane / 16 * 8, lane / 8 % 2) ^ 32 * k;
    HEARTH_UNROLL
    for (int r = 0; r < Tile::kRowTiles; ++r) {
      load_matrices(operands.w[r], w + w_at + 16 * r * kTileRowBytes);
    }
    HEARTH_UNROLL
    for (int t = 0; t < Tile::kTokenTiles / 2; ++t) {
      load_matrices(operands.x[t], x + x_at + 16 * t * kTileRowBytes);
    }
  }

  // A part of the tokens, of kMultiplyParts.
  __device__ __forceinline__ void multiply(const Operands& operands, int token_part,
                                           Sums& sums) const {
    constexpr int kAtOnce = Tile::kTokenTiles / kMultiplyParts;
    HEARTH_UNROLL
    for (int t = token_part * kAtOnce; t < (token_part + 1) * kAtOnce; ++t) {
      const uint32_t(&x)[4] = operands.x[t / 2];
      HEARTH_UNROLL
      for (int r = 0; r < Tile::kRowTiles; ++r) {
        multiply_matrices(sums[r][t], operands.w[r], x[t % 2 * 2], x[t % 2 * 2 + 1]);
      }
    }
  }
  __device__ __forceinline__ void multiply(const Operands& operands, Sums& sums) const {
    HEARTH_UNROLL
    for (int i = 0; i < kMultiplyParts; ++i) multiply(operands, i, sums);
  }

  // What a step leaves on its way when its tiles have been read.
  __device__ __forceinline__ void fetch_stored_after(int step) const {
    HEARTH_UNROLL
    for (int i = 0; i < kFetchParts; ++i) fetch_stored(step + 1 + Tile::kRawTiles, i);
    commit_copies();
  }
  __device__ __forceinline__ void fetch_tiles_after(int step) const {
    HEARTH_UNROLL
    for (int i = 0; i < kFetchParts; ++i) fetch_tiles(step + Tile::kTokensTiles, i);
    commit_copies();
  }

  // The first steps' weights and tokens on their way, and the first tile.
  __device__ __forceinline__ void begin(Operands& operands) const {
    list_places();
    if constexpr (F::kTableBytes > 0) F::load_table();
    __syncthreads();
    HEARTH_NO_UNROLL
    for (int step = -1 - Tile::kRawTiles; step < -1; ++step) fetch_stored_after(step);
    HEARTH_NO_UNROLL
    for (int step = -Tile::kTokensTiles; step < -1; ++step) fetch_tiles_after(step);
    wait_copies<0>();
    if constexpr (!kIsCopied) {
      __syncwarp();
      typename F::Piece piece;
      HEARTH_UNROLL
      for (int unit = 0; unit < 4; ++unit) unpack(0, unit, piece);
      __syncwarp();  // the warp has read its stored weights
    }
    fetch_stored_after(-1);
    fetch_tiles_after(-1);
    __syncthreads();
    read(0, 0, operands);
  }

  // `now` holds the operands of the step's first 16 columns, and of the next step's at the end.
  __device__ __forceinline__ void take_step(int step, Operands& now, Operands& next,
                                            Sums& sums) const {
    typename F::Piece piece;
    if constexpr (!kIsCopied) {
      wait_copies<2 * Tile::kRawTiles - 1>();
      __syncwarp();  // the next step's stored weights are there
    }
    read(step, 1, next);
    if constexpr (!kIsCopied) unpack(step + 1, 0, piece);
    multiply(now, sums);
    read(step, 2, now);
    if constexpr (!kIsCopied) {
      unpack(step + 1, 1, piece);
      unpack(step + 1, 2, piece);
    }
    multiply(next, sums);
    read(step, 3, next);
    if constexpr (!kIsCopied) unpack(step + 1, 3, piece);
    multiply(now, sums);
    wait_copies<2 * Tile::kTokensTiles - 4>();
    __syncthreads();  // the next step's tiles are there, and nobody reads this one's any more
    read(step + 1, 0, now);
    HEARTH_UNROLL
    for (int i = 0; i < kFetchParts; ++i) {
      fetch_stored(step + 1 + Tile::kRawTiles, i);
      multiply(next, i, sums);
    }
    commit_copies();
    HEARTH_UNROLL
    for (int i = 0; i < kFetchParts; ++i) {
      fetch_tiles(step + Tile::kTokensTiles, i);
      multiply(next, kFetchParts + i, sums);
    }
    commit_copies();
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

template <typename F, typename Op, int kTokens, bool kIsCopied>
__global__ void __launch_bounds__(kBlockThreads, kManyShape<kTokens>.blocks) many_kernel(Op op) {
  using Block = ManyBlock<F, Op, kTokens, kIsCopied>;
  typename Op::Part part;
  if (!op.template find<kTokens>(part)) return;
  const Block block(op, part);
  typename Block::Sums sums = {};
  typename Block::Operands now, next;
  const int steps = static_cast<int>(divide_up(op.cols(), kManyStep));
  block.begin(now);
  HEARTH_NO_UNROLL
  for (int step = 0; step < steps; ++step) block.take_step(step, now, next, sums);
  block.store(sums);
}

// Blocks that start together share weights: tiles of tokens come first.
template <typename F, typename Op, int kTokens, bool kIsCopied = false>
void launch_many(const Op& op, int64_t token_tiles, int64_t row_tiles, GpuStream stream) {
  const dim3 grid(static_cast<uint32_t>(token_tiles), static_cast<uint32_t>(row_tiles));
  launch(many_kernel<F, Op, kTokens, kIsCopied>,
         {grid, kBlockThreads, ManyTile<F, kTokens, kIsCopied>::kSharedBytes}, stream, op);
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

// The largest tiles are for GPUs with shared memory for them, and for so many of them that at least
// half of the processors have one: smaller ones are twice as many.
inline int many_tile_tokens(int64_t tokens, int64_t row_tiles) {
  if (tokens <= kManyTokensLeast) return kManyTokensLeast;
  if (tokens <= kManyTokens) return kManyTokens;
  const DeviceLimits limits = device_limits();
  const int64_t tiles = row_tiles * divide_up(tokens, kManyTokensMost);
  const bool is_wide = limits.shared_bytes >= kSharedMost && 2 * tiles >= limits.processors;
  return is_wide ? kManyTokensMost : kManyTokens;
}

template <typename F, int kTokens>
void multiply_tiles_of(const ManyMatmul& op, int64_t row_tiles, GpuStream stream) {
  const int64_t token_tiles = divide_up(op.p.n, kTokens);
  if constexpr (F::kIsBfloat16) {
    if (reinterpret_cast<uintptr_t>(op.p.w.data) % 16 == 0) {
      return launch_many<F, ManyMatmul, kTokens, true>(op, token_tiles, row_tiles, stream);
    }
  }
  launch_many<F, ManyMatmul, kTokens>(op, token_tiles, row_tiles, stream);
}

template <typename F>
void multiply_many(const GpuMatmulParams& p, GpuStream stream) {
  HEARTH_CHECK(p.w.cols % F::kBlock == 0);
  const ManyMatmul op = {p, p.w.cols / F::kBlock * F::kBlockBytes};
  const int64_t row_tiles = divide_up(p.w.rows, kManyRows);
  switch (many_tile_tokens(p.n, row_tiles)) {
    case kManyTokensLeast:
      return multiply_tiles_of<F, kManyTokensLeast>(op, row_tiles, stream);
    case kManyTokens:
      return multiply_tiles_of<F, kManyTokens>(op, row_tiles, stream);
    default:
      return multiply_tiles_of<F, kManyTokensMost>(op, row_tiles, stream);
  }
}

}  // namespace hearth::HEARTH_GPU
