// The tile registers and what is done with them. Compiled with the AMX flags these are the
// instructions, without them an emulation in plain code, so that the bodies around them can be
// tested on any machine with AVX-512.
//
// Eight registers hold a tile each, up to sixteen rows of 64 bytes:
//   0 .. 3  sums of float32: of tokens 4 with weights 6 and 7, then of tokens 5 with them
//   4, 5    tokens, a row each: 32 columns of bfloat16
//   6, 7    weights: row p has columns 2 p and 2 p + 1 of sixteen weight rows
#pragma once

#include <cstdint>

#include "base/check.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kTileBytes = 64;  // of a row
constexpr int kTokenTile = 4;
constexpr int kWeightTile = 6;

#ifdef __AMX_BF16__

// Written as assembly: the intrinsics want literal numbers, and the compiler need not know that
// they touch memory.
class TileUnit {
 public:
  ~TileUnit() { asm volatile("tilerelease"); }

  // Clears all registers. The token tiles and their sums get as many rows as there are tokens; the
  // ones without a token must not be used.
  void configure(int tokens0, int tokens1) {
    const int token_rows[2] = {tokens0, tokens1};
    Layout layout = {};
    layout.palette = 1;
    for (int t = 0; t < 8; ++t) {
      layout.rows[t] = static_cast<uint8_t>(t >= kWeightTile  ? 16
                                            : t >= kTokenTile ? token_rows[t - kTokenTile]
                                                              : token_rows[t / 2]);
      layout.row_bytes[t] = layout.rows[t] > 0 ? kTileBytes : 0;
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
  // sums += tokens x weights.
  template <int sums, int tokens, int weights>
  void multiply() {
    asm volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(weights), "i"(tokens), "i"(sums));
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
  void configure(int tokens0, int tokens1) {
    const int token_rows[2] = {tokens0, tokens1};
    for (int t = 0; t < 8; ++t) {
      rows_[t] = t >= kWeightTile  ? 16
                 : t >= kTokenTile ? token_rows[t - kTokenTile]
                                   : token_rows[t / 2];
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
      __builtin_memcpy(words_[tile][r], static_cast<const char*>(rows) + r * stride, kTileBytes);
    }
  }
  template <int tile>
  void store(void* rows, int64_t stride) {
    HEARTH_CHECK(rows_[tile] > 0);
    for (int r = 0; r < rows_[tile]; ++r) {
      __builtin_memcpy(static_cast<char*>(rows) + r * stride, words_[tile][r], kTileBytes);
    }
  }

  // The even and the odd columns are summed apart, as the instruction does.
  template <int sums, int tokens, int weights>
  void multiply() {
    HEARTH_CHECK(rows_[sums] > 0 && rows_[tokens] == rows_[sums] && rows_[weights] == kWords);
    float even[kWords][kWords], odd[kWords][kWords];
    for (int p = 0; p < kWords; ++p) {
      for (int r = 0; r < kWords; ++r) {
        even[p][r] = low(words_[weights][p][r]);
        odd[p][r] = high(words_[weights][p][r]);
      }
    }
    for (int t = 0; t < rows_[tokens]; ++t) {
      float even_sums[kWords] = {}, odd_sums[kWords] = {};
      for (int p = 0; p < kWords; ++p) {
        const float x0 = low(words_[tokens][t][p]), x1 = high(words_[tokens][t][p]);
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

 private:
  static constexpr int kWords = kTileBytes / 4;

  // A bfloat16 is the upper half of a float32.
  static float low(uint32_t pair) { return __builtin_bit_cast(float, pair << 16); }
  static float high(uint32_t pair) { return __builtin_bit_cast(float, pair & 0xffff0000); }
  void clear(int tile) { __builtin_memset(words_[tile], 0, sizeof(words_[tile])); }

  int rows_[8] = {};
  uint32_t words_[8][16][kWords];
};

#endif

}  // namespace
}  // namespace hearth::HEARTH_ISA
