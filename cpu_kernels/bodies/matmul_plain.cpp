// Matmul with weights that are floats of 32 or 16 bits, on unrounded activations. Each result has
// one vector of partial sums over consecutive columns, whatever tile it is computed in.
#include "cpu_kernels/bodies/matmul.h"
#include "cpu_kernels/bodies/matmul_simd.h"

namespace hearth::HEARTH_ISA {
namespace {

constexpr int kLanes = sizeof(RowFloats) / sizeof(float);
constexpr int kRowTile = 4;
constexpr int kTokenTile = kLanes == 16 ? 4 : 2;  // 32 vector registers or 16
constexpr int64_t kPanelTokens = 32;  // whose activations stay in the cache while rows stream by
constexpr int64_t kStripRows = 32;    // whose sums are kept while a chunk of the tokens' columns is
constexpr int64_t kChunkColumns = 1024;  // in the first-level cache

template <TensorType type>
struct Plain;

template <>
struct Plain<TensorType::kF32> {
  using Value = float;
  static HEARTH_INLINE RowFloats load(const Value* p) { return load_floats(p); }
};

template <>
struct Plain<TensorType::kF16> {
  using Value = uint16_t;
  static HEARTH_INLINE RowFloats load(const Value* p) {
#ifdef __AVX512F__
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#else
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
  }
};

template <>
struct Plain<TensorType::kBF16> {
  using Value = uint16_t;
  // A bfloat16 is the upper half of a float32.
  static HEARTH_INLINE RowFloats load(const Value* p) {
#ifdef __AVX512F__
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
#else
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
#endif
  }
};

// The last columns, fewer than lanes, with zeros after them.
template <typename T>
HEARTH_INLINE void pad(const T* values, int64_t count, T* padded) {
  for (int64_t i = 0; i < kLanes; ++i) padded[i] = i < count ? values[i] : T{};
}

// Columns column .. column_end - 1 of some rows and tokens; the first ones set the sums.
template <TensorType type, int rows, int tokens>
void multiply_chunk(const MatmulParams& p, int64_t row, int64_t token, int64_t column,
                    int64_t column_end, RowFloats (&kept)[rows][tokens]) {
  using Value = typename Plain<type>::Value;
  const int64_t k = p.w.cols;
  const Value* w[rows];
  const float* x[tokens];
  RowFloats sums[rows][tokens];
  for (int r = 0; r < rows; ++r) w[r] = reinterpret_cast<const Value*>(p.w.data) + (row + r) * k;
  for (int t = 0; t < tokens; ++t) {
    x[t] = p.x + x_row(p, token + t) * k;
    for (int r = 0; r < rows; ++r) sums[r][t] = column == 0 ? splat_float(0.0f) : kept[r][t];
  }
  auto add = [&](const Value* const* weights, const float* const* values, int64_t at) {
    RowFloats xs[tokens];
    for (int t = 0; t < tokens; ++t) xs[t] = load_floats(values[t] + at);
    for (int r = 0; r < rows; ++r) {
      // The rows that come next.
      _mm_prefetch(reinterpret_cast<const char*>(weights[r] + at + rows * k), _MM_HINT_T1);
      const RowFloats ws = Plain<type>::load(weights[r] + at);
      for (int t = 0; t < tokens; ++t) sums[r][t] = fused_add(ws, xs[t], sums[r][t]);
    }
  };
  for (; column + kLanes <= column_end; column += kLanes) add(w, x, column);
  if (column < column_end) {
    Value padded_w[rows][kLanes];
    float padded_x[tokens][kLanes];
    const Value* last_w[rows];
    const float* last_x[tokens];
    for (int r = 0; r < rows; ++r)
      pad(w[r] + column, k - column, padded_w[r]), last_w[r] = padded_w[r];
    for (int t = 0; t < tokens; ++t)
      pad(x[t] + column, k - column, padded_x[t]), last_x[t] = padded_x[t];
    add(last_w, last_x, 0);
  }
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < tokens; ++t) kept[r][t] = sums[r][t];
  }
}

template <int rows, int tokens>
void store_sums(const MatmulParams& p, int64_t row, int64_t token,
                const RowFloats (&sums)[rows][tokens]) {
  for (int t = 0; t < tokens; ++t) {
    float* y = y_row(p, token + t) + row;
    for (int r = 0; r < rows; ++r) y[r] = sum_lanes(sums[r][t]);
  }
}

template <TensorType type, int rows, int tokens>
void multiply_tile(const MatmulParams& p, int64_t row, int64_t token) {
  RowFloats sums[rows][tokens];
  multiply_chunk<type, rows, tokens>(p, row, token, 0, p.w.cols, sums);
  store_sums<rows, tokens>(p, row, token, sums);
}

// Full tiles of up to kStripRows rows, chunk after chunk of the columns: the tokens' chunk is read
// by all of the rows while it is near.
template <TensorType type>
void multiply_strip(const MatmulParams& p, int64_t row, int64_t row_end, int64_t token) {
  RowFloats sums[kStripRows / kRowTile][kRowTile][kTokenTile];
  for (int64_t column = 0; column < p.w.cols; column += kChunkColumns) {
    const int64_t end = p.w.cols < column + kChunkColumns ? p.w.cols : column + kChunkColumns;
    for (int64_t r = row; r < row_end; r += kRowTile) {
      multiply_chunk<type, kRowTile, kTokenTile>(p, r, token, column, end,
                                                 sums[(r - row) / kRowTile]);
    }
  }
  for (int64_t r = row; r < row_end; r += kRowTile) {
    store_sums<kRowTile, kTokenTile>(p, r, token, sums[(r - row) / kRowTile]);
  }
}

template <TensorType type, int rows>
void multiply_rows(const MatmulParams& p, int64_t row, int64_t token, int64_t token_end) {
  for (; token + kTokenTile <= token_end; token += kTokenTile)
    multiply_tile<type, rows, kTokenTile>(p, row, token);
  for (; token < token_end; ++token) multiply_tile<type, rows, 1>(p, row, token);
}

template <TensorType type>
void multiply_panel(const MatmulParams& p, int64_t token, int64_t token_end) {
  const int64_t whole_rows = p.row_begin + (p.row_end - p.row_begin) / kRowTile * kRowTile;
  int64_t done = token;
  if (p.w.cols > kChunkColumns) {
    for (; done + kTokenTile <= token_end; done += kTokenTile) {
      for (int64_t row = p.row_begin; row < whole_rows; row += kStripRows) {
        const int64_t end = whole_rows < row + kStripRows ? whole_rows : row + kStripRows;
        multiply_strip<type>(p, row, end, done);
      }
    }
  }
  for (int64_t row = p.row_begin; row < whole_rows; row += kRowTile)
    multiply_rows<type, kRowTile>(p, row, done, token_end);
  for (int64_t row = whole_rows; row < p.row_end; ++row)
    multiply_rows<type, 1>(p, row, token, token_end);
}

}  // namespace

template <TensorType type>
void matmul_plain(const MatmulParams& p) {
  for (int64_t token = 0; token < p.n; token += kPanelTokens) {
    multiply_panel<type>(p, token, p.n < token + kPanelTokens ? p.n : token + kPanelTokens);
  }
}

template void matmul_plain<TensorType::kF32>(const MatmulParams&);
template void matmul_plain<TensorType::kF16>(const MatmulParams&);
template void matmul_plain<TensorType::kBF16>(const MatmulParams&);

}  // namespace hearth::HEARTH_ISA
