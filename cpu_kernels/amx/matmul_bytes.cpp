// Matmul of Q8_0 weights for a batch that decodes: the dots of blocks are products of tiles of
// bytes, sixteen rows taken as they lie in the file. Sums are formed by the operations and in the
// order of bodies/matmul_blocks.h, so the results are the bits of the other ways.
#include "cpu_kernels/amx/tile_product.h"
#include "cpu_kernels/bodies/matmul_blocks.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kBlockBytes = 34;  // a half float, then the codes
constexpr int kCodesAt = 2;
constexpr int kBlockWords = kQuantBlock / 4;
constexpr int kSpanColumns = 8192;  // of tokens, arranged at a time
constexpr int kSpanBlocks = kSpanColumns / kQuantBlock;
constexpr int kBatchLanes = 16;  // tokens of a pass
constexpr int kAtOnce = 4;       // blocks whose products are under way together
constexpr int kGroupBytes = 16 * kAtOnce * kBlockBytes;

// One pass over the rows for up to `lanes` tokens, eight or sixteen: those of a row of sums.
template <int lanes>
class BytesPass {
 public:
  BytesPass(const MatmulParams& p, int64_t first, int count)
      : p_(p),
        row_bytes_(row_bytes(p.w.type, p.w.cols)),
        first_(first),
        count_(count),
        row_starts_(_mm512_mullo_epi32(
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
            _mm512_set1_epi32(static_cast<int>(row_bytes_)))) {}

  void run() {
    for (span_ = 0; span_ < p_.w.cols; span_ += kSpanColumns) {
      span_blocks_ = least(p_.w.cols - span_, kSpanColumns) / kQuantBlock;
      arrange_tokens();
      int64_t row = p_.row_begin;
      if (p_.row_end - row >= 16) configure(16);
      for (; p_.row_end - row >= 16; row += 16) multiply_rows(row, 16);
      if (row == p_.row_end) continue;
      configure(least(p_.row_end - row, 16));
      multiply_rows(row, least(p_.row_end - row, 16));
    }
  }

 private:
  static constexpr int kSumVectors = lanes;  // of sixteen, for sixteen rows

  // Registers: sums 0 .. 3, weights 4 and 5, tokens 6 and 7.
  void configure(int rows) {
    unit_.configure({rows, rows, rows, rows, rows, rows, kBlockWords, kBlockWords},
                    {4 * lanes, 4 * lanes, 4 * lanes, 4 * lanes, kQuantBlock, kQuantBlock,
                     4 * lanes, 4 * lanes});
  }

  // The span's codes as right tiles, a word of each token side by side, and the scales likewise.
  // Lanes without a token have zeros.
  void arrange_tokens() {
    alignas(64) Byte padded[kBatchLanes][kTileBytes] = {};
    for (int block = 0; block < span_blocks_; block += 2) {
      const bool is_last = block + 1 == span_blocks_;
      transpose_tile(
          [&](int t) -> const Byte* {
            if (t >= count_) return padded[t];
            const Byte* codes = codes_of(t) + block * kQuantBlock;
            if (!is_last) return codes;
            __builtin_memcpy(padded[t], codes, kQuantBlock);
            return padded[t];
          },
          codes_[block]);
    }
    for (int t = 0; t < count_; ++t) {
      const int64_t at = x_row(p_, first_ + t) * p_.w.cols + span_;
      const float* scales = p_.xq.scales + at / kQuantBlock;
      for (int block = 0; block < span_blocks_; ++block) {
        for (int lane = t; lane < kBatchLanes; lane += lanes) scales_[block][lane] = scales[block];
      }
    }
  }

  const Byte* codes_of(int t) const {
    const int64_t at = x_row(p_, first_ + t) * p_.w.cols + span_;
    return reinterpret_cast<const Byte*>(p_.xq.codes) + at;
  }

  // Whole rows, since memory is read ahead along them.
  void multiply_rows(int64_t row, int rows) {
    for (int block = 0; block < span_blocks_; block += kChunkBlocks) {
      multiply_chunk(row, rows, block, least(span_blocks_ - block, kChunkBlocks));
    }
  }

  // Blocks first .. first + count - 1 of the span.
  void multiply_chunk(int64_t row, int rows, int first, int count) {
    const int64_t column_bytes = (span_ / kQuantBlock + first) * kBlockBytes;
    const Byte* weights = p_.w.data + row * row_bytes_ + column_bytes;
    // What of the next sixteen rows is asked for, as much as is multiplied.
    const Byte* ahead = rows_ahead(row) + column_bytes;
    const Byte* row_ahead_end = ahead + count * kBlockBytes;
    __builtin_memset(partials_, 0, sizeof(partials_));
    int block = 0;
    for (; block + kAtOnce <= count; block += kAtOnce) {
      multiply_group(weights + block * kBlockBytes, first + block, rows, ahead);
      ahead += kGroupBytes;
      if (ahead >= row_ahead_end) {
        ahead += row_bytes_ - count * kBlockBytes;
        row_ahead_end += row_bytes_;
      }
    }
    for (; block < count; ++block) {
      multiply_block<0, 4, 6>(weights + block * kBlockBytes, first + block);
      add_block(weights + block * kBlockBytes, first + block, dots_[0], rows);
    }
    write_rows(row, rows, span_ + first > 0);
  }

  HEARTH_INLINE void multiply_group(const Byte* weights, int block, int rows, const Byte* ahead) {
    multiply_block<0, 4, 6>(weights, block);
    prefetch<0>(ahead);
    multiply_block<1, 5, 7>(weights + kBlockBytes, block + 1);
    prefetch<1>(ahead);
    multiply_block<2, 4, 6>(weights + 2 * kBlockBytes, block + 2);
    prefetch<2>(ahead);
    multiply_block<3, 5, 7>(weights + 3 * kBlockBytes, block + 3);
    prefetch<3>(ahead);
    add_block(weights, block, dots_[0], rows);
    prefetch<4>(ahead);
    add_block(weights + kBlockBytes, block + 1, dots_[1], rows);
    prefetch<5>(ahead);
    add_block(weights + 2 * kBlockBytes, block + 2, dots_[2], rows);
    prefetch<6>(ahead);
    add_block(weights + 3 * kBlockBytes, block + 3, dots_[3], rows);
    prefetch<7>(ahead);
  }

  // The dots of sixteen rows with the block's tokens, to dots_[sums].
  template <int sums, int left, int right>
  HEARTH_INLINE void multiply_block(const Byte* weights, int block) {
    unit_.zero<sums>();
    unit_.load<left>(weights + kCodesAt, row_bytes_);
    unit_.load<right>(codes_[block], kTileBytes);
    unit_.multiply_bytes<sums, left, right>();
    unit_.store<sums>(dots_[sums], 4 * lanes);
  }

  // partial = fma(dot * activation scale, weight scale, partial)
  HEARTH_INLINE void add_block(const Byte* weights, int block, const int32_t* dots, int rows) {
    const __m512 weight_scales = scales_of(weights, rows);
    const __m512 token_scales = _mm512_load_ps(scales_[block]);
    float* partials = partials_[block % kPartials];
    for (int v = 0; v < kSumVectors; ++v, dots += 16, partials += 16) {
      const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots));
      const __m512 weight_scale = _mm512_permutexvar_ps(rows_of_vector(v), weight_scales);
      _mm512_store_ps(partials, _mm512_fmadd_ps(_mm512_mul_ps(dot, token_scales), weight_scale,
                                                _mm512_load_ps(partials)));
    }
  }

  // The row that each lane of vector v belongs to.
  static HEARTH_INLINE __m512i rows_of_vector(int v) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i row = lanes == 16 ? _mm512_setzero_si512() : _mm512_srli_epi32(lane, 3);
    return _mm512_add_epi32(row, _mm512_set1_epi32(v * (16 / lanes)));
  }

  HEARTH_INLINE __m512 scales_of(const Byte* weights, int rows) const {
    const __mmask16 mask = static_cast<__mmask16>(0xffff >> (16 - rows));
    const __m512i heads =
        _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, row_starts_, weights, 1);
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(heads));
  }

  // Where the rows lie that come next, as far as that is known.
  const Byte* rows_ahead(int64_t row) const {
    const int64_t ahead = row + 16;
    if (ahead < p_.row_end || p_.next == nullptr) return p_.w.data + ahead * row_bytes_;
    return p_.next + (ahead - p_.row_end) * row_bytes_;
  }

  // A part of what a group takes. Spread over the work: a burst would keep the loads waiting.
  template <int part>
  static HEARTH_INLINE void prefetch(const Byte* ahead) {
    constexpr int kLines = kGroupBytes / 64, kParts = 8;
    for (int line = part * kLines / kParts; line < (part + 1) * kLines / kParts; ++line) {
      _mm_prefetch(ahead + line * 64, _MM_HINT_T1);
    }
  }

  void write_rows(int64_t row, int rows, bool adds) {
    alignas(64) float sums[16 * lanes];
    for (int at = 0; at < 16 * lanes; at += 16) {
      const auto partial = [&](int i) { return _mm512_load_ps(partials_[i] + at); };
      const auto pair = [&](int i) { return _mm512_add_ps(partial(i), partial(i + 4)); };
      const __m512 even = _mm512_add_ps(pair(0), pair(2)), odd = _mm512_add_ps(pair(1), pair(3));
      _mm512_store_ps(sums + at, _mm512_add_ps(even, odd));
    }
    for (int t = 0; t < count_; ++t) {
      alignas(64) float of_token[16];
      for (int r = 0; r < 16; ++r) of_token[r] = sums[r * lanes + t];
      write_sums(of_token, rows, adds, y_row(p_, first_ + t) + row);
    }
  }

  const MatmulParams& p_;
  const int64_t row_bytes_;
  const int64_t first_;
  const int count_;
  const __m512i row_starts_;
  TileUnit unit_;
  int64_t span_ = 0;  // the column where the span at hand begins
  int span_blocks_ = 0;
  alignas(64) Byte codes_[kSpanBlocks][kBlockWords * kTileBytes];
  alignas(64) float scales_[kSpanBlocks][kBatchLanes] = {};
  alignas(64) int32_t dots_[kAtOnce][16 * lanes] = {};  // [row, token]
  alignas(64) float partials_[kPartials][16 * lanes];   // likewise
};

}  // namespace

void matmul_bytes(const MatmulParams& p) {
  for (int64_t first = 0; first < p.n; first += kBatchLanes) {
    const int count = least(p.n - first, kBatchLanes);
    if (count <= kBatchLanes / 2) {
      BytesPass<kBatchLanes / 2>(p, first, count).run();
    } else {
      BytesPass<kBatchLanes>(p, first, count).run();
    }
  }
}

}  // namespace hearth::HEARTH_ISA
