// Matmul in tiles for tens of tokens: up to 48 have their columns transposed once, then pairs of tiles
// of weights are unpacked, into a place that stays in the first-level cache, and multiplied at once.
// All sums stay in tile registers. What is unpacked is multiplied after the next was begun, so that
// vector units and tile units work at the same time.
#pragma once

#include "cpu_kernels/amx/tile_product.h"
#include "cpu_kernels/amx/unpack_tiles.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kPassTiles = 3;  // of tokens
constexpr int kFewColumns = 4096;
constexpr int kFewRows = 32;

template <TensorType type>
class FewTokensMatmul {
 public:
  explicit FewTokensMatmul(const MatmulParams& p)
      : p_(p), row_bytes_(row_bytes(p.w.type, p.w.cols)) {}

  // Tokens in passes of about the same number of tiles.
  void run() {
    unit_.configure({16, 16, 16, 16, 16, 16, 16, 16});
    const int tiles = static_cast<int>(p_.n + 15) / 16;
    const int passes = (tiles + kPassTiles - 1) / kPassTiles;
    for (int pass = 0; pass < passes; ++pass) {
      first_ = 16 * (tiles * pass / passes);
      const int64_t end = 16 * (tiles * (pass + 1) / passes);
      count_ = static_cast<int>((end < p_.n ? end : p_.n) - first_);
      switch ((count_ + 15) / 16) {
        case 1:
          multiply_pass<1>();
          break;
        case 2:
          multiply_pass<2>();
          break;
        default:
          multiply_pass<3>();
      }
    }
  }

 private:
  // Blocks of 32 columns that are unpacked at a time.
  static constexpr int kRunBlocks = kByBlock<type> ? 1 : kStepBlocks;
  static constexpr int kRunValues = kRunBlocks * kTileValues;  // of sixteen rows

  template <int tiles>
  void multiply_pass() {
    for (column_ = 0; column_ < p_.w.cols; column_ += kFewColumns) {
      blocks_ = least(p_.w.cols - column_, kFewColumns) / kTileColumns;
      transpose_tokens();
      for (int64_t row = p_.row_begin; row < p_.row_end; row += kFewRows) {
        multiply_rows<tiles>(row);
        write_rows(row);
      }
    }
  }

  // Tokens past the last one repeat it; nothing comes of them.
  void transpose_tokens() {
    uint16_t* out = tokens_;
    for (int first = 0; first < count_; first += 16) {
      const uint16_t* rows[16];
      for (int i = 0; i < 16; ++i) {
        rows[i] = token_at(p_, first_ + least(count_ - 1, first + i), column_);
      }
      for (int b = 0; b < blocks_; ++b, out += kTileValues) {
        transpose_tile([&](int i) { return rows[i] + b * kTileColumns; }, out);
      }
    }
  }

  template <int tiles>
  void multiply_rows(int64_t row) {
    clear_sums<tiles>();
    unpack_run(row, 0, weights_[0]);
    int turn = 0;
    for (int block = kRunBlocks; block < blocks_; block += kRunBlocks, turn ^= 1) {
      add_run<tiles>(block - kRunBlocks, weights_[turn]);
      unpack_run(row, block, weights_[turn ^ 1]);
    }
    add_run<tiles>((blocks_ - 1) / kRunBlocks * kRunBlocks, weights_[turn]);
    store_sums<tiles>();
  }

  // Tiles of 32 rows, the first sixteen's blocks before the others'.
  HEARTH_INLINE void unpack_run(int64_t row, int block, uint16_t* tiles) {
    if constexpr (kByBlock<type>) {
      prefetch_rows(row, block);
      if (p_.row_end - row >= kFewRows) {
        unpack_block(row, kFewRows, block, tiles);
      } else {
        unpack_block(row, static_cast<int>(p_.row_end - row), block, tiles);
      }
    } else {
      const int64_t step = (column_ / kTileColumns + block) / kStepBlocks;
      for (int half = 0; half < 2; ++half) {
        const int64_t first = row + 16 * half;
        if (first >= p_.row_end) break;
        unpack_step<type>({p_.w, first, p_.row_end, rows_ahead(first)}, step,
                          least(blocks_ - block, kStepBlocks), tiles + half * kRunValues);
      }
    }
  }

  HEARTH_INLINE void unpack_block(int64_t row, int rows, int block, uint16_t* tiles) {
    const BlockUnpacker<type> unpack;
    const Byte* from =
        p_.w.data + row * row_bytes_ + (column_ / kTileColumns + block) * unpack.kBytes;
#pragma GCC unroll 32
    for (int r = 0; r < rows; ++r, from += row_bytes_) unpack(from, tiles + r * kTileColumns);
  }

  // Where the rows lie that are unpacked 32 rows later.
  const Byte* rows_ahead(int64_t row) const {
    const int64_t ahead = row + kFewRows;
    if (ahead < p_.row_end || p_.next == nullptr) return p_.w.data + ahead * row_bytes_;
    return p_.next + (ahead - p_.row_end) * row_bytes_;
  }

  // Asks for a step of some of those rows, for all of them while a step is unpacked.
  HEARTH_INLINE void prefetch_rows(int64_t row, int block) {
    constexpr int kRows = kFewRows / kStepBlocks;
    const int64_t step = (column_ / kTileColumns + block) / kStepBlocks;
    const Byte* from = rows_ahead(row) + block % kStepBlocks * kRows * row_bytes_ +
                       step * Format<type>::kStepBytes;
    for (int r = 0; r < kRows; ++r, from += row_bytes_) {
      for (int i = 0; i < Format<type>::kStepBytes; i += 64) _mm_prefetch(from + i, _MM_HINT_T1);
    }
  }

  // Registers: sums 0 .. 2 of the first sixteen rows, 3 .. 5 of the others; 6 has weights, 7
  // tokens.
  template <int tiles>
  void clear_sums() {
    unit_.zero<0>();
    unit_.zero<3>();
    if constexpr (tiles > 1) unit_.zero<1>(), unit_.zero<4>();
    if constexpr (tiles > 2) unit_.zero<2>(), unit_.zero<5>();
  }

  template <int tiles>
  HEARTH_INLINE void add_run(int block, const uint16_t* weights) {
    const int count = least(blocks_ - block, kRunBlocks);
    const int64_t next_tile = blocks_ * kTileValues;
    const uint16_t* x = tokens_ + block * kTileValues;
    for (int b = 0; b < count; ++b, x += kTileValues, weights += kTileValues) {
      auto load_tokens = [&](int tile) { unit_.load<7>(x + tile * next_tile, kTileBytes); };
      unit_.load<6>(weights, kTileBytes);
      load_tokens(0);
      unit_.multiply<0, 6, 7>();
      if constexpr (tiles > 1) load_tokens(1), unit_.multiply<1, 6, 7>();
      if constexpr (tiles > 2) load_tokens(2), unit_.multiply<2, 6, 7>();
      unit_.load<6>(weights + kRunValues, kTileBytes);
      if constexpr (tiles > 2) unit_.multiply<5, 6, 7>(), load_tokens(1);
      if constexpr (tiles > 1) unit_.multiply<4, 6, 7>(), load_tokens(0);
      unit_.multiply<3, 6, 7>();
    }
  }

  template <int tiles>
  void store_sums() {
    unit_.store<0>(sums_[0], kTileBytes);
    unit_.store<3>(sums_[3], kTileBytes);
    if constexpr (tiles > 1) unit_.store<1>(sums_[1], kTileBytes), unit_.store<4>(sums_[4], kTileBytes);
    if constexpr (tiles > 2) unit_.store<2>(sums_[2], kTileBytes), unit_.store<5>(sums_[5], kTileBytes);
  }

  void write_rows(int64_t row) {
    for (int half = 0; half < 2 && row + 16 * half < p_.row_end; ++half) {
      const int64_t first = row + 16 * half;
      for (int token = 0; token < count_; token += 16) {
        const float* sums = sums_[3 * half + token / 16];
        alignas(64) float by_token[16][16];
        transpose_tile([&](int i) { return sums + 16 * i; }, by_token);
        for (int i = 0; i < least(count_ - token, 16); ++i) {
          write_sums(by_token[i], least(p_.row_end - first, 16), column_ > 0,
                     y_row(p_, first_ + token + i) + first);
        }
      }
    }
  }

  const MatmulParams& p_;
  const int64_t row_bytes_;
  TileUnit unit_;
  int64_t first_ = 0;   // token of the pass
  int count_ = 0;       // tokens of the pass
  int64_t column_ = 0;  // where the chunk at hand begins
  int blocks_ = 0;      // of the chunk
  alignas(64) uint16_t weights_[2][2 * kRunValues];
  alignas(64) uint16_t tokens_[kPassTiles * 16 * kFewColumns];
  alignas(64) float sums_[2 * kPassTiles][kTileFloats];
};

}  // namespace

template <TensorType type>
void matmul_few(const MatmulParams& p) {
  FewTokensMatmul<type>(p).run();
}

}  // namespace hearth::HEARTH_ISA
