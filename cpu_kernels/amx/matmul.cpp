// Matmul in tiles, for many tokens of a prefill: weights of any block format are unpacked to tiles
// of bfloat16 in scratch that stays in the caches, and multiplied with the tokens' bfloat16 rows in
// blocks of two by two tiles, sums in float32.
#include "cpu_kernels/bodies/matmul.h"

#include <immintrin.h>

#include "cpu_kernels/amx/avx512.h"
#include "cpu_kernels/amx/tile_unit.h"
#include "cpu_kernels/amx/weight_tiles.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int64_t kTokensMin = 8;  // for fewer, unpacking costs more than the product
constexpr int kBlockTokens = 32;   // two tiles
constexpr int kBlockRows = 32;     // two tiles
constexpr int kFewColumns = 2048;  // for one block of tokens: long runs of weights
constexpr int kManyColumns = 512;  // for several: a block of tokens stays in the first-level cache
constexpr int kStripRows = 512;    // and with these a strip of weights in the second-level cache
constexpr int kPanelStride = kFewColumns + kTileColumns;  // rows in different sets of the cache

using Unpack = void (*)(const Matrix&, int64_t, int64_t, int64_t, int, uint16_t*);

// Null for formats that tiles are not used for.
Unpack unpack_of(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return unpack_tiles<TensorType::kQ4_0>;
    case TensorType::kQ4_1:
      return unpack_tiles<TensorType::kQ4_1>;
    case TensorType::kQ5_0:
      return unpack_tiles<TensorType::kQ5_0>;
    case TensorType::kQ5_1:
      return unpack_tiles<TensorType::kQ5_1>;
    case TensorType::kQ8_0:
      return unpack_tiles<TensorType::kQ8_0>;
    case TensorType::kQ2_K:
      return unpack_tiles<TensorType::kQ2_K>;
    case TensorType::kQ3_K:
      return unpack_tiles<TensorType::kQ3_K>;
    case TensorType::kQ4_K:
      return unpack_tiles<TensorType::kQ4_K>;
    case TensorType::kQ5_K:
      return unpack_tiles<TensorType::kQ5_K>;
    case TensorType::kQ6_K:
      return unpack_tiles<TensorType::kQ6_K>;
    case TensorType::kIQ2_XXS:
      return unpack_tiles<TensorType::kIQ2_XXS>;
    case TensorType::kIQ2_XS:
      return unpack_tiles<TensorType::kIQ2_XS>;
    case TensorType::kIQ2_S:
      return unpack_tiles<TensorType::kIQ2_S>;
    case TensorType::kIQ3_XXS:
      return unpack_tiles<TensorType::kIQ3_XXS>;
    case TensorType::kIQ3_S:
      return unpack_tiles<TensorType::kIQ3_S>;
    case TensorType::kIQ4_NL:
      return unpack_tiles<TensorType::kIQ4_NL>;
    case TensorType::kIQ4_XS:
      return unpack_tiles<TensorType::kIQ4_XS>;
    case TensorType::kMXFP4:
      return unpack_tiles<TensorType::kMXFP4>;
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kF8_E4M3:
    case TensorType::kI32:
      break;
  }
  return nullptr;
}

// Up to 32 tokens of the call; `rows` have the columns of the chunk at hand.
struct TokenBlock {
  int64_t first;
  int count;
  const uint16_t* rows;
  int64_t stride;  // bytes

  int tiles() const { return count > 16 ? 2 : 1; }
  TokenBlock from_column(int64_t column) const { return {first, count, rows + column, stride}; }
};

// Tiles of up to 32 rows: `groups` of sixteen, each `group_values` after the last.
struct WeightBlock {
  const uint16_t* tiles;
  int64_t group_values;
  int groups;
};

template <int token_tiles, int weight_tiles>
void add_products(TileUnit& unit, const TokenBlock& tokens, const WeightBlock& weights,
                  int blocks) {
  const uint16_t* x = tokens.rows;
  const uint16_t* w = weights.tiles;
  for (int b = 0; b < blocks; ++b, x += kTileColumns, w += kTileValues) {
    unit.load<4>(x, tokens.stride);
    unit.load<6>(w, kTileBytes);
    unit.multiply<0, 4, 6>();
    if constexpr (weight_tiles == 2) {
      unit.load<7>(w + weights.group_values, kTileBytes);
      unit.multiply<1, 4, 7>();
    }
    if constexpr (token_tiles == 2) {
      unit.load<5>(reinterpret_cast<const char*>(x) + 16 * tokens.stride, tokens.stride);
      unit.multiply<2, 5, 6>();
      if constexpr (weight_tiles == 2) unit.multiply<3, 5, 7>();
    }
  }
}

int least(int64_t a, int b) { return static_cast<int>(a < b ? a : b); }

class TileMatmul {
 public:
  TileMatmul(const MatmulParams& p, Unpack unpack) : p_(p), unpack_(unpack) {}

  void run() { p_.n <= kBlockTokens ? multiply_few() : multiply_many(); }

 private:
  // One block of tokens: each 32 rows are unpacked and multiplied step by step, so that the tiles
  // are still in the first-level cache.
  void multiply_few() {
    for (int64_t column = 0; column < p_.w.cols; column += kFewColumns) {
      const int columns = least(p_.w.cols - column, kFewColumns);
      const TokenBlock tokens = take_tokens(0, column, columns);
      for (int64_t row = p_.row_begin; row < p_.row_end; row += kBlockRows) {
        const int rows = least(p_.row_end - row, kBlockRows);
        clear_sums(tokens);
        for (int at = 0; at < columns; at += kUnpackColumns) {
          const int blocks = least(columns - at, kUnpackColumns) / kTileColumns;
          unpack_rows(row, rows, column + at, blocks);
          add_block(tokens.from_column(at), 0, rows, blocks);
        }
        add_to_rows(tokens, row, rows, column == 0);
      }
    }
  }

  // Many tokens: a strip of rows is unpacked once for all of them.
  void multiply_many() {
    for (int64_t column = 0; column < p_.w.cols; column += kManyColumns) {
      const int columns = least(p_.w.cols - column, kManyColumns);
      for (int64_t row = p_.row_begin; row < p_.row_end; row += kStripRows) {
        const int rows = least(p_.row_end - row, kStripRows);
        unpack_rows(row, rows, column, columns / kTileColumns);
        for (int64_t token = 0; token < p_.n; token += kBlockTokens) {
          multiply_strip(take_tokens(token, column, columns), row, rows, column == 0,
                         columns / kTileColumns);
        }
      }
    }
  }

  void multiply_strip(const TokenBlock& tokens, int64_t row, int rows, bool first_chunk,
                      int blocks) {
    for (int at = 0; at < rows; at += kBlockRows) {
      const int block_rows = least(rows - at, kBlockRows);
      clear_sums(tokens);
      add_block(tokens, at, block_rows, blocks);
      add_to_rows(tokens, row + at, block_rows, first_chunk);
    }
  }

  void unpack_rows(int64_t row, int rows, int64_t column, int blocks) {
    uint16_t* tiles = weights_;
    for (int at = 0; at < rows; at += 16, tiles += blocks * kTileValues) {
      unpack_(p_.w, row + at, row + rows, column / kUnpackColumns, blocks, tiles);
    }
  }

  // The rows of up to 32 tokens: where they are if they lie evenly spaced, else copied together.
  TokenBlock take_tokens(int64_t first, int64_t column, int columns) {
    const int count = least(p_.n - first, kBlockTokens);
    unit_.configure(count < 16 ? count : 16, count > 16 ? count - 16 : 0);
    const int64_t first_row = x_row(p_, first);
    const int64_t spacing = count > 1 ? x_row(p_, first + 1) - first_row : 0;
    bool even = true;
    for (int t = 0; t < count; ++t) even &= x_row(p_, first + t) == first_row + t * spacing;
    if (even) {
      return {first, count, x_at(first, column),
              spacing * p_.xq.bfloat16_stride * static_cast<int64_t>(sizeof(uint16_t))};
    }
    for (int t = 0; t < count; ++t) {
      __builtin_memcpy(tokens_[t], x_at(first + t, column), columns * sizeof(uint16_t));
    }
    return {first, count, tokens_[0], sizeof(tokens_[0])};
  }

  const uint16_t* x_at(int64_t token, int64_t column) const {
    return p_.xq.bfloat16s + x_row(p_, token) * p_.xq.bfloat16_stride + column;
  }

  void clear_sums(const TokenBlock& tokens) {
    unit_.zero<0>();
    unit_.zero<1>();
    if (tokens.tiles() == 1) return;
    unit_.zero<2>();
    unit_.zero<3>();
  }

  // Rows `at` .. at + rows - 1 of what was unpacked.
  void add_block(const TokenBlock& tokens, int at, int rows, int blocks) {
    const int64_t group_values = static_cast<int64_t>(blocks) * kTileValues;
    const WeightBlock weights = {weights_ + at / 16 * group_values, group_values,
                                 rows > 16 ? 2 : 1};
    if (tokens.tiles() == 2) {
      weights.groups == 2 ? add_products<2, 2>(unit_, tokens, weights, blocks)
                          : add_products<2, 1>(unit_, tokens, weights, blocks);
    } else {
      weights.groups == 2 ? add_products<1, 2>(unit_, tokens, weights, blocks)
                          : add_products<1, 1>(unit_, tokens, weights, blocks);
    }
  }

  // Adds the sums to y, or sets it for the first columns.
  void add_to_rows(const TokenBlock& tokens, int64_t row, int rows, bool first_chunk) {
    alignas(64) float sums[kBlockTokens][kBlockRows];
    unit_.store<0>(sums[0], sizeof(sums[0]));
    unit_.store<1>(sums[0] + 16, sizeof(sums[0]));
    if (tokens.tiles() == 2) {
      unit_.store<2>(sums[16], sizeof(sums[0]));
      unit_.store<3>(sums[16] + 16, sizeof(sums[0]));
    }
    for (int t = 0; t < tokens.count; ++t) {
      float* y = y_row(p_, tokens.first + t) + row;
      for (int at = 0; at < rows; at += 16) {
        const __mmask16 mask = static_cast<__mmask16>((1u << least(rows - at, 16)) - 1);
        __m512 sum = _mm512_load_ps(sums[t] + at);
        if (!first_chunk) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y + at));
        _mm512_mask_storeu_ps(y + at, mask, sum);
      }
    }
  }

  const MatmulParams& p_;
  const Unpack unpack_;
  TileUnit unit_;
  alignas(64) uint16_t weights_[kStripRows * kManyColumns];
  alignas(64) uint16_t tokens_[kBlockTokens][kPanelStride];
};

}  // namespace

void matmul(const MatmulParams& p) {
  const Unpack unpack = p.prefill && p.n >= kTokensMin ? unpack_of(p.w.type) : nullptr;
  if (unpack == nullptr) return avx512::matmul(p);
  TileMatmul(p, unpack).run();
}

}  // namespace hearth::HEARTH_ISA
