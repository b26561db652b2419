// Block-format matmul for many tokens: a tile of rows is unpacked once into scratch on the stack,
// one vector lane a row, and multiplied with all tokens. One vector holds four columns of every row
// of the tile; a token's same four columns are broadcast against it, so dots need no horizontal
// sums.
#pragma once

#include "cpu_kernels/bodies/matmul_blocks.h"
#include "cpu_kernels/bodies/turned_rows.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kPanelTokens = 128;  // tokens that share an unpacked tile
constexpr int kTokenTile =
    kTileRows == 16 ? 8 : 4;  // tokens in registers: 32 vector registers or 16
constexpr int kBlockWords = kQuantBlock / 4;

// Blocks are stored by partial sum: all blocks of sum 0 first.
HEARTH_INLINE int slot_of(int block) {
  return block % kPartials * (kChunkBlocks / kPartials) + block / kPartials;
}

// One chunk of kTileRows rows.
struct WeightTile {
  alignas(64) Byte codes[kChunkBlocks][kBlockWords][kTileRows][4];
  float scales[2][kChunkBlocks][kTileRows];  // [half][slot][row]
  float biases[2][kChunkBlocks][kTileRows];
};

// One chunk of up to kPanelTokens tokens, in the order in which it is used: tiles of tokens, slots,
// tokens. A correction is what a dot starts from (an integer), or the activation sum that the bias
// is multiplied with.
template <typename Correction>
struct TokenPanel {
  struct Slot {
    int32_t codes[kTokenTile][kBlockWords];
    float scales[kTokenTile];
    Correction corrections[2][kTokenTile];
  };
  Slot slots[kPanelTokens / kTokenTile][kChunkBlocks];

  Slot& at(int token, int slot) { return slots[token / kTokenTile][slot]; }
};

template <bool has_bias>
struct CorrectionType {
  using Type = int32_t;
};
template <>
struct CorrectionType<true> {
  using Type = float;
};

// What the tile kernel needs to know of a format; formats alike in this share its code.
template <int group, int code_max, bool has_start, bool has_bias, int bias_group>
struct TileKind {
  static constexpr int kGroup = group;
  static constexpr int kBiasGroup = bias_group;
  static constexpr int kCodeMax = code_max;
  static constexpr bool kHasStart = has_start;
  static constexpr bool kHasBias = has_bias;
  using Correction = typename CorrectionType<has_bias>::Type;
  using Panel = TokenPanel<Correction>;
};

constexpr int round_code_max(int code_max) {
  if (kTileRows == 16) return 255;
  return code_max <= 63 ? 63 : code_max <= 127 ? 127 : 255;
}

template <typename F>
using KindOf =
    TileKind<F::kGroup, round_code_max(F::kCodeMax), kHasStart<F>, F::kHasBias, F::kBiasGroup>;

// Block `block` of the step of kTileRows rows. Vector q holds rows q, 4 + q, 8 + q .., so that the
// transposed words are those of all rows in order.
template <typename F>
HEARTH_INLINE void unpack_block(const Byte* const* steps, int block, Byte (*out)[kTileRows][4]) {
  const Codes c0 = F::codes(OneBlock{steps, block}), c1 = F::codes(OneBlock{steps + 1, block});
  const Codes c2 = F::codes(OneBlock{steps + 2, block}), c3 = F::codes(OneBlock{steps + 3, block});
  transpose_words(c0.lo, c1.lo, c2.lo, c3.lo, out);
  transpose_words(c0.hi, c1.hi, c2.hi, c3.hi, out + kBlockWords / 2);
}

// Scales of eight blocks of four rows.
HEARTH_INLINE void store_scales(float (*out)[kTileRows], int first_block, int quad,
                                const __m256* rows) {
  const __m256 low01 = _mm256_unpacklo_ps(rows[0], rows[1]),
               high01 = _mm256_unpackhi_ps(rows[0], rows[1]);
  const __m256 low23 = _mm256_unpacklo_ps(rows[2], rows[3]),
               high23 = _mm256_unpackhi_ps(rows[2], rows[3]);
  const __m256 blocks[4] = {
      _mm256_shuffle_ps(low01, low23, 0x44), _mm256_shuffle_ps(low01, low23, 0xee),
      _mm256_shuffle_ps(high01, high23, 0x44), _mm256_shuffle_ps(high01, high23, 0xee)};
  for (int b = 0; b < 4; ++b) {
    _mm_storeu_ps(out[slot_of(first_block + b)] + 4 * quad, _mm256_castps256_ps128(blocks[b]));
    _mm_storeu_ps(out[slot_of(first_block + 4 + b)] + 4 * quad,
                  _mm256_extractf128_ps(blocks[b], 1));
  }
}

template <typename F>
HEARTH_INLINE void unpack_scales(const Byte* const* steps, int first_block, int quad,
                                 WeightTile& tile) {
  Scales s[4];
  for (int i = 0; i < 4; ++i) F::scales(steps[4 * quad + i], s[i]);
  for (int half = 0; half < kQuantBlock / F::kGroup; ++half) {
    const __m256 scales[4] = {s[0].scales[half], s[1].scales[half], s[2].scales[half],
                              s[3].scales[half]};
    store_scales(tile.scales[half], first_block, quad, scales);
  }
  if constexpr (F::kHasBias) {
    for (int half = 0; half < kQuantBlock / F::kBiasGroup; ++half) {
      const __m256 biases[4] = {s[0].biases[half], s[1].biases[half], s[2].biases[half],
                                s[3].biases[half]};
      store_scales(tile.biases[half], first_block, quad, biases);
    }
  }
}

// A step of kTileRows rows, whose first block is `block` of the tile.
template <typename F>
HEARTH_INLINE void unpack_step(const Byte* const* steps, int block, WeightTile& tile) {
  for (int b = 0; b < kStepBlocks; ++b) unpack_block<F>(steps, b, tile.codes[slot_of(block + b)]);
  for (int quad = 0; quad < kTileRows / 4; ++quad) unpack_scales<F>(steps, block, quad, tile);
}

// The chunk of `blocks` blocks that begins at `first_step`, of rows row .. row + kTileRows - 1.
// Rows past the end repeat the last.
template <typename F>
void unpack_tile(const StepReader<F>& reader, int64_t row, int64_t row_end, int64_t first_step,
                 int blocks, WeightTile& tile) {
  for (int block = 0; block < blocks; block += kStepBlocks) {
    Byte padded[kTileRows][F::kStepBytes];
    const Byte* steps[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t from = row + r < row_end ? row + r : row_end - 1;
      steps[r] = reader.at(from, first_step + block / kStepBlocks, padded[r]);
      reader.prefetch(steps[r], kTileRows * reader.row_bytes);
    }
    unpack_step<F>(steps, block, tile);
  }
}

// The same of interleaved rows.
template <TensorType type>
void unpack_turned_tile(const StepReader<Format<type>>& reader, int64_t row, int64_t first_step,
                        int blocks, WeightTile& tile) {
  constexpr int64_t kBytes = int64_t{kTileRows} * Format<type>::kStepBytes;
  const Byte* data = reader.row(row) + first_step * kBytes;
  TurnedStep<type> stored;
  for (int block = 0; block < blocks; block += kStepBlocks, data += kBytes) {
    for (int64_t at = 0; at < kBytes; at += kLineBytes) {
      _mm_prefetch(reinterpret_cast<const char*>(data + kBytes + at), _MM_HINT_T1);
    }
    stored.take(data);
    const Byte* steps[kTileRows];
    for (int r = 0; r < kTileRows; ++r) steps[r] = stored.row(r);
    unpack_step<TurnedFormat<type>>(steps, block, tile);
  }
}

HEARTH_INLINE int sum_half(const int8_t* codes) {
  const __m128i positive =
      load_piece(reinterpret_cast<const Byte*>(codes)) ^ _mm_set1_epi8(static_cast<char>(0x80));
  const __m128i sums = _mm_sad_epu8(positive, _mm_setzero_si128());  // each code + 128
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 128 * kQuantHalf;
}

// Token t of a slot, whose activations of the slot's block begin at `codes` and `sums`.
template <typename F, typename Slot>
HEARTH_INLINE void set_corrections(const int8_t* codes, const float* sums, int t, Slot& slot) {
  if constexpr (F::kHasBias) {
    slot.corrections[0][t] = F::kBiasGroup == 32 ? sums[0] + sums[1] : sums[0];
    slot.corrections[1][t] = sums[1];
  } else if constexpr (kHasStart<F>) {
    const int first = sum_half(codes), last = sum_half(codes + kQuantHalf);
    slot.corrections[0][t] = -F::kOffset * (F::kGroup == 32 ? first + last : first);
    slot.corrections[1][t] = -F::kOffset * last;
  }
}

template <typename F>
void fill_panel(const MatmulParams& p, int64_t first_token, int tokens, int64_t first_block,
                int blocks, typename KindOf<F>::Panel& panel) {
  for (int t = 0; t < tokens; ++t) {
    const int64_t row_block = x_row(p, first_token + t) * (p.w.cols / kQuantBlock) + first_block;
    for (int b = 0; b < blocks; ++b) {
      const int8_t* codes = p.xq.codes + (row_block + b) * kQuantBlock;
      auto& slot = panel.at(t, slot_of(b));
      const int column = t % kTokenTile;
      __builtin_memcpy(slot.codes[column], codes, kQuantBlock);
      slot.scales[column] = p.xq.scales[row_block + b] * F::kFactor;
      set_corrections<F>(codes, p.xq.sums + 2 * (row_block + b), column, slot);
    }
  }
}

// The product of one chunk of a tile with `tokens` tokens of the panel.
template <typename Kind, int tokens>
struct TileProduct {
  const WeightTile& tile;
  const typename Kind::Panel& panel;
  int first_token;
  int blocks;

  // The chunk's sums: the partial sums in the order of the definition.
  void sum_partials(int first, int stride, RowFloats* out) const {
    if (stride == kPartials) return partial_sum(first, out);
    RowFloats second[tokens];
    sum_partials(first, 2 * stride, out);
    sum_partials(first + stride, 2 * stride, second);
    for (int t = 0; t < tokens; ++t) out[t] += second[t];
  }

  [[gnu::noinline]] void partial_sum(int first, RowFloats* out) const {
    RowFloats sums[tokens];
    for (int t = 0; t < tokens; ++t) sums[t] = splat_float(0.0f);
    const int end = slot_of(first) + (blocks - first + kPartials - 1) / kPartials;
    for (int slot = slot_of(first); slot < end; ++slot) {
      const TokenSlot x(panel.slots[first_token / kTokenTile][slot], first_token % kTokenTile);
      add_group<Kind::kGroup>(slot, 0, x, sums);
      if constexpr (Kind::kGroup == 16) add_group<16>(slot, 1, x, sums);
      if constexpr (Kind::kHasBias) {
        add_bias(slot, 0, x, sums);
        if constexpr (Kind::kBiasGroup == 16) add_bias(slot, 1, x, sums);
      }
    }
    for (int t = 0; t < tokens; ++t) out[t] = sums[t];
  }

  // A slot from one of its tokens on. Pointers, so that all else in the loops is a constant offset.
  struct TokenSlot {
    const int32_t (*codes)[kBlockWords];
    const float* scales;
    const typename Kind::Correction* corrections[2];

    HEARTH_INLINE TokenSlot(const typename Kind::Panel::Slot& slot, int token)
        : codes(slot.codes + token),
          scales(slot.scales + token),
          corrections{slot.corrections[0] + token, slot.corrections[1] + token} {}
  };

  // One group of weights: the whole block or one half of it.
  template <int group>
  HEARTH_INLINE void add_group(int slot, int half, const TokenSlot& x, RowFloats* sums) const {
    Bytes dots[tokens];
    for (int t = 0; t < tokens; ++t) {
      dots[t] = zero();
      if constexpr (Kind::kHasStart) dots[t] = splat_word(x.corrections[half][t]);
    }
    const Byte* codes = tile.codes[slot][4 * half][0];
    for (int j = 0; j < group / 4; j += 2) {
      const Bytes w0 = load_bytes(codes + j * sizeof(Bytes)),
                  w1 = load_bytes(codes + (j + 1) * sizeof(Bytes));
      for (int t = 0; t < tokens; ++t) {
        const int32_t* words = x.codes[t] + 4 * half + j;
        dots[t] =
            dot_add<Kind::kCodeMax>(dots[t], w0, splat_word(words[0]), w1, splat_word(words[1]));
      }
    }
    const RowFloats scale = load_floats(tile.scales[half][slot]);
    for (int t = 0; t < tokens; ++t) {
      sums[t] = fused_add(to_floats(dots[t]) * splat_float(x.scales[t]), scale, sums[t]);
    }
  }

  HEARTH_INLINE void add_bias(int slot, int half, const TokenSlot& x, RowFloats* sums) const {
    const RowFloats bias = load_floats(tile.biases[half][slot]);
    for (int t = 0; t < tokens; ++t) {
      sums[t] = fused_add(bias, splat_float(x.corrections[half][t]), sums[t]);
    }
  }
};

// Adds the chunk's sums to y, or sets it for the first chunk.
HEARTH_INLINE void add_to_rows(RowFloats sums, bool first_chunk, int rows, float* y) {
  if (rows == kTileRows) {
    store_floats(y, (first_chunk ? splat_float(0.0f) : load_floats(y)) + sums);
    return;
  }
  float values[kTileRows];
  store_floats(values, sums);
  for (int r = 0; r < rows; ++r) y[r] = (first_chunk ? 0.0f : y[r]) + values[r];
}

template <TensorType type>
class ManyTokens {
  using F = Format<type>;
  using Kind = KindOf<F>;

 public:
  explicit ManyTokens(const MatmulParams& p) : p_(p), reader_(p.w) {}

  void run() {
    for (int64_t token = 0; token < p_.n; token += kPanelTokens) {
      const int tokens =
          static_cast<int>(p_.n - token < kPanelTokens ? p_.n - token : kPanelTokens);
      const int64_t steps = step_count(p_.w.cols);
      for (int64_t step = 0; step < steps; step += kChunkSteps) {
        const int64_t rest = (p_.w.cols - step * kStepColumns) / kQuantBlock;
        blocks_ = static_cast<int>(rest < kChunkBlocks ? rest : kChunkBlocks);
        fill_panel<F>(p_, token, tokens, step * kStepBlocks, blocks_, panel_);
        for (int64_t row = p_.row_begin; row < p_.row_end; row += kTileRows) {
          unpack(row, step);
          multiply_panel(row, token, tokens, step == 0);
        }
      }
    }
  }

 private:
  void unpack(int64_t row, int64_t step) {
    if constexpr (kInterleaves<type>) {
      if (p_.w.interleaved) return unpack_turned_tile<type>(reader_, row, step, blocks_, tile_);
    }
    unpack_tile(reader_, row, p_.row_end, step, blocks_, tile_);
  }

  void multiply_panel(int64_t row, int64_t first_token, int tokens, bool first_chunk) {
    int t = 0;
    for (; t + kTokenTile <= tokens; t += kTokenTile)
      multiply<kTokenTile>(row, first_token, t, first_chunk);
    if (kTokenTile == 8 && t + 4 <= tokens) multiply<4>(row, first_token, t, first_chunk), t += 4;
    if (t + 2 <= tokens) multiply<2>(row, first_token, t, first_chunk), t += 2;
    if (t < tokens) multiply<1>(row, first_token, t, first_chunk);
  }

  template <int tokens>
  void multiply(int64_t row, int64_t first_token, int token, bool first_chunk) {
    RowFloats sums[tokens];
    TileProduct<Kind, tokens>{tile_, panel_, token, blocks_}.sum_partials(0, 1, sums);
    const int rows = static_cast<int>(p_.row_end - row < kTileRows ? p_.row_end - row : kTileRows);
    for (int t = 0; t < tokens; ++t) {
      add_to_rows(sums[t], first_chunk, rows, y_row(p_, first_token + token + t) + row);
    }
  }

  const MatmulParams& p_;
  StepReader<F> reader_;
  int blocks_ = 0;  // of the chunk
  WeightTile tile_;
  typename Kind::Panel panel_;
};

}  // namespace
}  // namespace hearth::HEARTH_ISA
