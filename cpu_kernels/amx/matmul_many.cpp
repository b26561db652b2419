// Matmul in tiles for hundreds of tokens: a strip of weights is unpacked and transposed once and
// stays in the second-level cache, while blocks of 32 tokens pass by. The sums of 32 rows and a
// block stay in tile registers over all columns of the strip.
#include "cpu_kernels/amx/tile_product.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kStripRows = 256;
constexpr int kStripColumns = 2048;
constexpr int kPairRows = 32;                               // of two tiles
constexpr int kPanelStride = kStripColumns + kTileColumns;  // rows in different sets of the cache

// Up to 32 tokens in the columns of the strip at hand.
struct TokenBlock {
  int64_t first;
  int count;
  const uint16_t* rows;
  int64_t stride;  // values

  int tiles() const { return count > 16 ? 2 : 1; }
};

class ManyTokensMatmul {
 public:
  ManyTokensMatmul(const MatmulParams& p, Unpack unpack) : p_(p), unpack_(unpack) {}

  void run() {
    for (int64_t row = p_.row_begin; row < p_.row_end; row += kStripRows) {
      rows_ = least(p_.row_end - row, kStripRows);
      for (int64_t column = 0; column < p_.w.cols; column += kStripColumns) {
        columns_ = least(p_.w.cols - column, kStripColumns);
        unpack_strip(row, column);
        for (int64_t token = 0; token < p_.n; token += kPairRows) {
          multiply_strip(take_tokens(token, column), row, column);
        }
      }
    }
  }

 private:
  int64_t tile_values() const { return int64_t{columns_} * 16; }  // of sixteen rows

  void unpack_strip(int64_t row, int64_t column) {
    alignas(64) uint16_t tiles[16 * kUnpackColumns];
    uint16_t* out = strip_;
    for (int at = 0; at < rows_; at += 16) {
      const TileRows rows{p_.w, row + at, p_.row_end, row_at(row + at + 16)};
      for (int from = 0; from < columns_; from += kUnpackColumns) {
        const int blocks = least(columns_ - from, kUnpackColumns) / kTileColumns;
        unpack_(rows, (column + from) / kUnpackColumns, blocks, tiles);
        for (int b = 0; b < blocks; ++b, out += kTileValues) {
          transpose_tile([&](int i) { return tiles + b * kTileValues + i * kTileColumns; }, out);
        }
      }
    }
  }

  const unsigned char* row_at(int64_t row) const {
    return p_.w.data + row * row_bytes(p_.w.type, p_.w.cols);
  }

  // Where they are if they lie evenly spaced, else copied together.
  TokenBlock take_tokens(int64_t first, int64_t column) {
    const int count = least(p_.n - first, kPairRows);
    const int64_t first_row = x_row(p_, first);
    const int64_t spacing = count > 1 ? x_row(p_, first + 1) - first_row : 0;
    bool even = true;
    for (int t = 0; t < count; ++t) even &= x_row(p_, first + t) == first_row + t * spacing;
    if (even) {
      return {first, count, token_at(p_, first, column), spacing * p_.xq.bfloat16_stride};
    }
    for (int t = 0; t < count; ++t) {
      __builtin_memcpy(tokens_[t], token_at(p_, first + t, column), columns_ * sizeof(uint16_t));
    }
    return {first, count, tokens_[0], kPanelStride};
  }

  void multiply_strip(const TokenBlock& tokens, int64_t row, int64_t column) {
    const int low = least(tokens.count, 16), high = tokens.count - low;
    unit_.configure({low, low, high, high, low, high, 16, 16});
    for (int at = 0; at < rows_; at += kPairRows) {
      if (tokens.tiles() == 2) {
        multiply_pair<2>(tokens, at);
      } else {
        multiply_pair<1>(tokens, at);
      }
      prefetch_tokens(tokens.first + kPairRows, column, at);
      write_pair(tokens, row + at, column > 0);
    }
  }

  // 32 rows from row `at` of the strip on. Registers: sums 0, 1 of the first sixteen tokens, 2, 3
  // of the others; 4, 5 have tokens, 6, 7 weights. Rows past the end have any weights; nothing
  // comes of them.
  template <int token_tiles>
  void multiply_pair(const TokenBlock& tokens, int at) {
    const uint16_t* x = tokens.rows;
    const uint16_t* w = strip_ + at / 16 * tile_values();
    const int64_t next_tile = at + 16 < rows_ ? tile_values() : 0;
    const int64_t stride = tokens.stride * static_cast<int64_t>(sizeof(uint16_t));
    unit_.zero<0>(), unit_.zero<1>();
    if constexpr (token_tiles == 2) unit_.zero<2>(), unit_.zero<3>();
    for (int b = 0; b < columns_; b += kTileColumns, x += kTileColumns, w += kTileValues) {
      unit_.load<4>(x, stride);
      unit_.load<6>(w, kTileBytes);
      unit_.multiply<0, 4, 6>();
      unit_.load<7>(w + next_tile, kTileBytes);
      unit_.multiply<1, 4, 7>();
      if constexpr (token_tiles == 2) {
        unit_.load<5>(x + 16 * tokens.stride, stride);
        unit_.multiply<2, 5, 6>();
        unit_.multiply<3, 5, 7>();
      }
    }
    unit_.store<0>(sums_[0], kTileBytes), unit_.store<1>(sums_[1], kTileBytes);
    if constexpr (token_tiles == 2) {
      unit_.store<2>(sums_[2], kTileBytes), unit_.store<3>(sums_[3], kTileBytes);
    }
  }

  // Asks for a part of the tokens that come next, while rows `at` and on are multiplied.
  void prefetch_tokens(int64_t first, int64_t column, int at) {
    const int parts = (rows_ + kPairRows - 1) / kPairRows;
    const int part = at / kPairRows;
    const int64_t end = first + (part + 1) * kPairRows / parts;
    for (int64_t t = first + part * kPairRows / parts; t < end && t < p_.n; ++t) {
      const uint16_t* from = token_at(p_, t, column);
      for (int i = 0; i < columns_; i += kTileColumns) _mm_prefetch(from + i, _MM_HINT_T1);
    }
  }

  void write_pair(const TokenBlock& tokens, int64_t row, bool adds) {
    for (int t = 0; t < tokens.count; ++t) {
      float* y = y_row(p_, tokens.first + t) + row;
      const float* sums = sums_[t / 16 * 2] + t % 16 * 16;
      write_sums(sums, least(p_.row_end - row, 16), adds, y);
      if (row + 16 < p_.row_end) {
        write_sums(sums + kTileFloats, least(p_.row_end - row - 16, 16), adds, y + 16);
      }
    }
  }

  const MatmulParams& p_;
  const Unpack unpack_;
  TileUnit unit_;
  int rows_ = 0;     // of the strip at hand
  int columns_ = 0;  // of it
  alignas(64) uint16_t strip_[kStripRows * kStripColumns];
  alignas(64) uint16_t tokens_[kPairRows][kPanelStride];
  alignas(64) float sums_[4][kTileFloats];
};

}  // namespace

void matmul_many(const MatmulParams& p, Unpack unpack) { ManyTokensMatmul(p, unpack).run(); }

}  // namespace hearth::HEARTH_ISA
