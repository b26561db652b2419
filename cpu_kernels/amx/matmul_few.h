// Matmul in tiles for tens of tokens: up to 96 have their columns transposed once, then weights are
// unpacked, a block of sixteen or 32 rows into a place that stays in the first-level cache, and
// multiplied at once. All sums stay in tile registers. Formats that are unpacked block by block
// have the multiplications of one block between the rows of the next, so that vector units and tile
// units work at the same time.
#pragma once

#include "cpu_kernels/amx/tile_product.h"
#include "cpu_kernels/amx/unpack_tiles.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kPassTiles = 6;  // of tokens, as many as there are registers for sums
constexpr int kFewColumns = 4096;

// The numbers 0 .. n - 1, to unroll loops over.
template <int...>
struct Numbers {};
template <int n, int... rest>
struct NumbersBelow : NumbersBelow<n - 1, n - 1, rest...> {};
template <int... all>
struct NumbersBelow<0, all...> {
  using Type = Numbers<all...>;
};
template <int n>
using Below = typename NumbersBelow<n>::Type;

// One pass over the rows, for `tiles` tiles of tokens.
template <TensorType type, int tiles>
class FewTokensPass {
 public:
  // Tokens first .. first + count - 1 of the call.
  FewTokensPass(const MatmulParams& p, int64_t first, int count)
      : p_(p), row_bytes_(row_bytes(p.w.type, p.w.cols)), first_(first), count_(count) {}

  void run() {
    unit_.configure({16, 16, 16, 16, 16, 16, 16, 16});
    for (column_ = 0; column_ < p_.w.cols; column_ += kFewColumns) {
      blocks_ = least(p_.w.cols - column_, kFewColumns) / kTileColumns;
      transpose_tokens();
      for (int64_t row = p_.row_begin; row < p_.row_end; row += kRows) {
        multiply_rows(row);
        write_rows(row);
      }
    }
  }

 private:
  static constexpr int kHalves = 2 * tiles <= kPassTiles ? 2 : 1;  // tiles of rows
  static constexpr int kRows = 16 * kHalves;
  static constexpr int kParts = kHalves * tiles;  // products of a block's tiles
  static constexpr int kRunBlocks = kByBlock<type> ? 1 : kStepBlocks;  // unpacked at a time
  static constexpr int kRunValues = kRunBlocks * kTileValues;          // of sixteen rows

  // Tokens past the last one repeat it; nothing comes of them.
  void transpose_tokens() {
    uint16_t* out = tokens_;
    for (int first = 0; first < 16 * tiles; first += 16) {
      const uint16_t* rows[16];
      for (int i = 0; i < 16; ++i) {
        rows[i] = token_at(p_, first_ + least(count_ - 1, first + i), column_);
      }
      for (int b = 0; b < blocks_; ++b, out += kTileValues) {
        transpose_tile([&](int i) { return rows[i] + b * kTileColumns; }, out);
      }
    }
  }

  void multiply_rows(int64_t row) {
    clear_sums(Below<kParts>());
    if constexpr (kByBlock<type>) {
      multiply_blocks(row);
    } else {
      multiply_steps(row);
    }
    store_sums(Below<kParts>());
  }

  void multiply_steps(int64_t row) {
    for (int block = 0; block < blocks_; block += kStepBlocks) {
      const int64_t step = (column_ / kTileColumns + block) / kStepBlocks;
      const int count = least(blocks_ - block, kStepBlocks);
      for (int half = 0; half < kHalves && row + 16 * half < p_.row_end; ++half) {
        const int64_t first = row + 16 * half;
        unpack_tiles<type>({p_.w, first, p_.row_end, rows_ahead(first)}, step, count,
                           weights_[0] + half * kRunValues);
      }
      for (int b = 0; b < count; ++b) add_block(block + b, weights_[0] + b * kTileValues);
    }
  }

  // Where a block of each row at hand begins, and of MXFP4's its codes.
  struct BlockRows {
    const Byte* head;
    const Byte* codes;
    int64_t stride;
  };

  BlockRows block_rows(int64_t row, int block) {
    if constexpr (kInterleaves<type>) {
      if (p_.w.interleaved) return turned_rows(row, block);
    }
    const Byte* head = p_.w.data + row * row_bytes_ +
                       (column_ / kTileColumns + block) * BlockUnpacker<type>::kBytes;
    return {head, head + 1, row_bytes_};
  }

  // Of interleaved rows, which are turned back with the first block of a step.
  BlockRows turned_rows(int64_t row, int block) {
    using F = TurnedFormat<type>;
    const int within = block % kStepBlocks;
    for (int half = 0; within == 0 && half < kHalves && row + 16 * half < p_.row_end; ++half) {
      const int64_t step = (column_ / kTileColumns + block) / kStepBlocks;
      turned_[half].take(p_.w.data + (row + 16 * half) * row_bytes_ + step * 16 * F::kStepBytes);
    }
    const Byte* first = turned_[0].row(0);
    return {first + within, first + F::kCodesAt + within * F::kCodeBytes,
            TurnedStep<type>::kStride};
  }

  static HEARTH_INLINE void unpack_row(const BlockUnpacker<type>& unpack, BlockRows& from,
                                       uint16_t* out) {
    if constexpr (kInterleaves<type>) {
      unpack(*from.head, from.codes, out);
      from.codes += from.stride;
    } else {
      unpack(from.head, out);
    }
    from.head += from.stride;
  }

  void multiply_blocks(int64_t row) {
    const int rows = least(p_.row_end - row, kRows);
    const BlockUnpacker<type> unpack;
    auto unpack_rows = [&](BlockRows from, uint16_t* out) {
      for (int r = 0; r < rows; ++r) unpack_row(unpack, from, out + r * kTileColumns);
    };
    unpack_rows(block_rows(row, 0), weights_[0]);
    for (int block = 1; block < blocks_; ++block) {
      const BlockRows from = block_rows(row, block);
      uint16_t* out = weights_[block % 2];
      prefetch_rows(row, block);
      if (rows == kRows) {
        unpack_and_add(unpack, from, out, block - 1, Below<kRows>());
      } else {
        unpack_rows(from, out);
        add_block(block - 1, weights_[(block - 1) % 2]);
      }
    }
    add_block(blocks_ - 1, weights_[(blocks_ - 1) % 2]);
  }

  // Unpacks a block to `out` while block `before` is multiplied.
  template <int... row>
  HEARTH_INLINE void unpack_and_add(const BlockUnpacker<type>& unpack, BlockRows from,
                                    uint16_t* out, int before, Numbers<row...>) {
    const uint16_t* weights = weights_[before % 2];
    const uint16_t* x = tokens_ + before * kTileValues;
    auto take_row = [&]<int r>() __attribute__((always_inline)) {
      unpack_row(unpack, from, out + r * kTileColumns);
      constexpr int kPart = r * kParts / kRows;
      if constexpr ((r + 1) * kParts / kRows > kPart) add_part<kPart>(x, weights);
    };
    (take_row.template operator()<row>(), ...);
  }

  // Where the rows lie that are unpacked in the next round.
  const Byte* rows_ahead(int64_t row) const {
    const int64_t ahead = row + kRows;
    if (ahead < p_.row_end || p_.next == nullptr) return p_.w.data + ahead * row_bytes_;
    return p_.next + (ahead - p_.row_end) * row_bytes_;
  }

  // Asks for a step of some of those rows, for all of them while a step is unpacked.
  HEARTH_INLINE void prefetch_rows(int64_t row, int block) {
    const int64_t step = (column_ / kTileColumns + block) / kStepBlocks;
    const int within = block % kStepBlocks;
    if (p_.w.interleaved) {
      constexpr int64_t kBytes = 16 * Format<type>::kStepBytes, kPart = kBytes / kStepBlocks;
      for (int half = 0; half < kHalves; ++half) {
        prefetch(rows_ahead(row + 16 * half) + step * kBytes + within * kPart, kPart);
      }
      return;
    }
    constexpr int kAtOnce = kRows / kStepBlocks;
    const Byte* from =
        rows_ahead(row) + within * kAtOnce * row_bytes_ + step * Format<type>::kStepBytes;
    for (int r = 0; r < kAtOnce; ++r, from += row_bytes_) prefetch(from, Format<type>::kStepBytes);
  }
  static HEARTH_INLINE void prefetch(const Byte* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += kLineBytes) _mm_prefetch(from + i, _MM_HINT_T1);
  }

  void add_block(int block, const uint16_t* weights) {
    const uint16_t* x = tokens_ + block * kTileValues;
    auto add = [&]<int... part>(Numbers<part...>) { (add_part<part>(x, weights), ...); };
    add(Below<kParts>());
  }

  // Registers: sums 0 .. 5, by half and tile of tokens; 6 has weights, 7 tokens. The second half
  // takes the tokens in the other order, the first of them as it is.
  template <int part>
  HEARTH_INLINE void add_part(const uint16_t* x, const uint16_t* weights) {
    constexpr int kHalf = part / tiles, kPlace = part % tiles;
    constexpr int kTile = kHalf == 0 ? kPlace : tiles - 1 - kPlace;
    if constexpr (kPlace == 0) unit_.load<6>(weights + kHalf * kRunValues, kTileBytes);
    if constexpr (kHalf == 0 || kPlace > 0) {
      unit_.load<7>(x + int64_t{kTile} * blocks_ * kTileValues, kTileBytes);
    }
    unit_.multiply<kHalf * tiles + kTile, 6, 7>();
  }

  template <int... sums>
  void clear_sums(Numbers<sums...>) {
    (unit_.zero<sums>(), ...);
  }
  template <int... sums>
  void store_sums(Numbers<sums...>) {
    (unit_.store<sums>(sums_[sums], kTileBytes), ...);
  }

  void write_rows(int64_t row) {
    for (int half = 0; half < kHalves && row + 16 * half < p_.row_end; ++half) {
      const int64_t first = row + 16 * half;
      for (int token = 0; token < count_; token += 16) {
        const float* sums = sums_[half * tiles + token / 16];
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
  const int64_t first_;
  const int count_;
  TileUnit unit_;
  int64_t column_ = 0;  // where the chunk at hand begins
  int blocks_ = 0;      // of the chunk
  alignas(64) uint16_t weights_[2][kHalves * kRunValues];
  alignas(64) uint16_t tokens_[tiles * 16 * kFewColumns];
  TurnedStep<type> turned_[kByBlock<type> && kInterleaves<type> ? kHalves : 1];
  alignas(64) float sums_[kParts][kTileFloats];
};

template <TensorType type>
void multiply_pass(const MatmulParams& p, int64_t first, int count) {
  switch ((count + 15) / 16) {
    case 1:
      return FewTokensPass<type, 1>(p, first, count).run();
    case 2:
      return FewTokensPass<type, 2>(p, first, count).run();
    case 3:
      return FewTokensPass<type, 3>(p, first, count).run();
    case 4:
      return FewTokensPass<type, 4>(p, first, count).run();
    case 5:
      return FewTokensPass<type, 5>(p, first, count).run();
    default:
      return FewTokensPass<type, 6>(p, first, count).run();
  }
}

}  // namespace

// Passes of about the same number of tiles.
template <TensorType type>
void matmul_few(const MatmulParams& p) {
  const int tiles = static_cast<int>(p.n + 15) / 16;
  const int passes = (tiles + kPassTiles - 1) / kPassTiles;
  for (int pass = 0; pass < passes; ++pass) {
    const int64_t first = 16 * (tiles * pass / passes), end = 16 * (tiles * (pass + 1) / passes);
    multiply_pass<type>(p, first, static_cast<int>((end < p.n ? end : p.n) - first));
  }
}

}  // namespace hearth::HEARTH_ISA
