// The tile registers and what is done with them. Compiled with the AMX flags these are the
// instructions, without them an emulation in plain code, so that the bodies around them can be
// tested on any machine with AVX-512.
//
// Eight registers hold a tile each, up to sixteen rows of up to 64 bytes. In a product
//   the left tile has rows of columns: 32 of bfloat16 or 64 bytes,
//   row p of the right one has columns 2 p and 2 p + 1 of sixteen rows, or bytes 4 p .. 4 p + 3,
//   the sums are float32, or int32 for bytes, a row for each row of the left tile.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kTileBytes = 64;  // of a row
constexpr int kTiles = 8;
constexpr int kWholeRows[kTiles] = {kTileBytes, kTileBytes, kTileBytes, kTileBytes,
                                    kTileBytes, kTileBytes, kTileBytes, kTileBytes};

#ifdef __AMX_BF16__

// Written as assembly: the intrinsics want literal numbers, and the compiler need not know that
// they touch memory.
class TileUnit {
 public:
  ~TileUnit() { asm volatile("tilerelease"); }

  // Clears all registers and gives each its number of rows and their bytes; one without rows must
  // not be used.
  void configure(const int (&rows)[kTiles], const int (&row_bytes)[kTiles] = kWholeRows) {
    Layout layout = {};
    layout.palette = 1;
    for (int t = 0; t < kTiles; ++t) {
      layout.rows[t] = static_cast<uint8_t>(rows[t]);
      layout.row_bytes[t] = static_cast<uint16_t>(rows[t] > 0 ? row_bytes[t] : 0);
    }
    asm volatile("ldtilecfg %0" : : "m"(layout));
  }

  template <int tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  // Rows lie `stride` bytes apart.
  template <int tile>
  void load(const void* rows, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  void store(void* rows, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(tile) : "memory");
  }
  // sums += left x right.
  template <int sums, int left, int right>
  void multiply() {
    asm volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(right), "i"(left), "i"(sums));
  }
  // The same of signed bytes.
  template <int sums, int left, int right>
  void multiply_bytes() {
    asm volatile("tdpbssd %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(right), "i"(left), "i"(sums));
  }

 private:
  struct alignas(64) Layout {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
};

#else

class TileUnit {
 public:
  void configure(const int (&rows)[kTiles], const int (&row_bytes)[kTiles] = kWholeRows) {
    for (int t = 0; t < kTiles; ++t) {
      rows_[t] = rows[t];
      row_bytes_[t] = row_bytes[t];
      clear(t);
    }
  }

  template <int tile>
  void zero() {
    HEARTH_CHECK(rows_[tile] > 0);
    clear(tile);
  }
  template <int tile>
  void load(const void* rows, int64_t stride) {
    HEARTH_CHECK(rows_[tile] > 0);
    clear(tile);
    for (int r = 0; r < rows_[tile]; ++r) {
      __builtin_memcpy(words_[tile][r], static_cast<const char*>(rows) + r * stride,
                       row_bytes_[tile]);
    }
  }
  template <int tile>
  void store(void* rows, int64_t stride) {
    HEARTH_CHECK(rows_[tile] > 0);
    for (int r = 0; r < rows_[tile]; ++r) {
      __builtin_memcpy(static_cast<char*>(rows) + r * stride, words_[tile][r], row_bytes_[tile]);
    }
  }

  // The even and the odd columns are summed apart, as the instruction does.
  template <int sums, int left, int right>
  void multiply() {
    HEARTH_CHECK(rows_[sums] > 0 && rows_[left] == rows_[sums] && rows_[right] == kWords);
    float even[kWords][kWords], odd[kWords][kWords];
    for (int p = 0; p < kWords; ++p) {
      for (int r = 0; r < kWords; ++r) {
        even[p][r] = low(words_[right][p][r]);
        odd[p][r] = high(words_[right][p][r]);
      }
    }
    for (int t = 0; t < rows_[left]; ++t) {
      float even_sums[kWords] = {}, odd_sums[kWords] = {};
      for (int p = 0; p < kWords; ++p) {
        const float x0 = low(words_[left][t][p]), x1 = high(words_[left][t][p]);
        for (int r = 0; r < kWords; ++r) {
          even_sums[r] += x0 * even[p][r];
          odd_sums[r] += x1 * odd[p][r];
        }
      }
      for (int r = 0; r < kWords; ++r) {
        const float sum =
            __builtin_bit_cast(float, words_[sums][t][r]) + (even_sums[r] + odd_sums[r]);
        words_[sums][t][r] = __builtin_bit_cast(uint32_t, sum);
      }
    }
  }
  template <int sums, int left, int right>
  void multiply_bytes() {
    HEARTH_CHECK(rows_[sums] > 0 && rows_[left] == rows_[sums]);
    HEARTH_CHECK(row_bytes_[left] == 4 * rows_[right] && row_bytes_[right] == row_bytes_[sums]);
    for (int t = 0; t < rows_[left]; ++t) {
      for (int r = 0; r < row_bytes_[sums] / 4; ++r) {
        auto sum = static_cast<int32_t>(words_[sums][t][r]);
        for (int p = 0; p < rows_[right]; ++p) {
          for (int j = 0; j < 4; ++j) {
            sum += byte_of(words_[left][t][p], j) * byte_of(words_[right][p][r], j);
          }
        }
        words_[sums][t][r] = static_cast<uint32_t>(sum);
      }
    }
  }

 private:
  static constexpr int kWords = kTileBytes / 4;

  // A bfloat16 is the upper half of a float32.
  static float low(uint32_t pair) { return __builtin_bit_cast(float, pair << 16); }
  static float high(uint32_t pair) { return __builtin_bit_cast(float, pair & 0xffff0000); }
  static int byte_of(uint32_t word, int j) { return static_cast<int8_t>(word >> 8 * j); }
  void clear(int tile) { __builtin_memset(words_[tile], 0, sizeof(words_[tile])); }

  int rows_[kTiles] = {};
  int row_bytes_[kTiles] = {};
  uint32_t words_[kTiles][16][kWords];
};

#endif

}  // namespace
}  // namespace hearth::HEARTH_ISA
