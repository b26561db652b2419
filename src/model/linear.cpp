#include "model/linear.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {
namespace {

// A piece takes this part of what is left for its thread: long streams first, short ones last, so
// that threads end a loop together.
constexpr int64_t kPartsOfRest = 3;
constexpr int64_t kPieceBytesMin = 32 << 10;
constexpr int64_t kFewTokens = 4;

constexpr int64_t kBfloat16Padding = 32;  // values after each row: one cache line

// Rows the kernels take at a time. In tiles they could do with fewer, but a piece's tokens may have
// to be brought in order, whatever its rows.
int64_t row_tile_of(const Compute& compute, const Product& product) {
  const bool rounded = reads_rounded(compute.kernels, product.w, compute.prefill);
  if (!rounded) return 4;
  if (product.n <= kFewTokens) return product.w.interleaved ? kInterleavedRows : 8;
  return compute.prefill && compute.kernels.reads_bfloat16 ? kPrefillRowTile : 16;
}

// The work of a row of a product, in bytes touched: weights once, activations per row.
int64_t row_cost(const Product& product) {
  return row_bytes(product.w.type, product.w.cols) + product.n * product.w.cols / 4;
}

const unsigned char* first_row(const ProductPiece& piece) {
  const Matrix& w = piece.product->w;
  return w.data + piece.row_begin * row_bytes(w.type, w.cols);
}

}  // namespace

ActivationBuffer::ActivationBuffer(const Kernels& kernels, int64_t n_max, int64_t width) {
  const bool can_round = width % kQuantBlock == 0;
  const int64_t stride = kernels.reads_bfloat16 && can_round ? width + kBfloat16Padding : 0;
  const size_t count = static_cast<size_t>(n_max * width);
  const size_t blocks = can_round ? count / kQuantBlock : 0;
  const size_t scales_and_sums = blocks * (1 + kQuantBlock / kQuantHalf);
  const size_t bfloat16s = static_cast<size_t>(n_max * stride);
  // The order keeps bfloat16 rows at whole cache lines.
  memory_ = Buffer((count + scales_and_sums) * sizeof(float) + bfloat16s * sizeof(uint16_t) +
                   blocks * kQuantBlock);
  rows_.values = memory_.as<float>();
  rows_.width = width;
  if (!can_round) return;
  RoundedRows& rounded = rows_.rounded;
  uint16_t* after_values = reinterpret_cast<uint16_t*>(rows_.values + count);
  rounded.bfloat16s = stride > 0 ? after_values : nullptr;
  rounded.bfloat16_stride = stride;
  rounded.scales = reinterpret_cast<float*>(after_values + bfloat16s);
  rounded.sums = rounded.scales + blocks;
  rounded.codes = reinterpret_cast<int8_t*>(rounded.scales + scales_and_sums);
}

ActivationRows& ActivationBuffer::fresh() {
  rows_.is_rounded = false;
  return rows_;
}

void round_rows_for(const Compute& compute, const Matrix& w, ActivationRows& x, int64_t n) {
  if (x.is_rounded || !reads_rounded(compute.kernels, w, compute.prefill)) return;
  HEARTH_CHECK(x.rounded.codes != nullptr);
  compute.workers.for_range(n, 4, [&](int64_t begin, int64_t end, int) {
    compute.kernels.quantize(x.values + begin * x.width, end - begin, x.width,
                             x.rounded_at(begin, 0));
  });
  x.is_rounded = true;
}

RoundedRows ActivationRows::rounded_at(int64_t row, int64_t column) const {
  const int64_t at = row * width + column;
  RoundedRows result = rounded;
  result.codes += at;
  result.scales += at / kQuantBlock;
  result.sums += at / kQuantHalf;
  if (rounded.bfloat16s != nullptr) result.bfloat16s += row * rounded.bfloat16_stride + column;
  return result;
}

void count_work(StageTotals& totals, std::span<const Product> products) {
  for (const Product& product : products) {
    HEARTH_CHECK(product.x->width == product.w.cols);
    HEARTH_CHECK(product.x->is_rounded || !reads_quantized(product.w.type));
    count_product(totals, product.w.type, product.w.rows, product.w.cols, product.n);
  }
}

std::span<const ProductPiece> cut_into_pieces(Compute& compute, std::span<const Product> products,
                                              int64_t row_tile) {
  const NodeShares& shares = compute.workers.shares();
  int64_t cost = 0;
  for (const Product& product : products) cost += product.w.rows * row_cost(product);

  // Node by node, as the workers begin: each has its share of every matrix's rows.
  compute.pieces.clear();
  for (int node = 0; node < shares.nodes(); ++node) {
    const int64_t parts = kPartsOfRest * std::max(shares.threads_of(node), 1);
    int64_t rest = shares.begin(cost, node + 1) - shares.begin(cost, node);
    for (const Product& product : products) {
      const int64_t tile_cost = row_cost(product) * row_tile;
      const int64_t tiles = (product.w.rows + row_tile - 1) / row_tile;
      const int64_t end = shares.begin(tiles, node + 1);
      for (int64_t tile = shares.begin(tiles, node); tile < end;) {
        const int64_t wanted = std::max(rest / parts, kPieceBytesMin) / tile_cost;
        const int64_t taken = std::clamp<int64_t>(wanted, 1, end - tile);
        compute.pieces.push_back(
            {&product, tile * row_tile, std::min((tile + taken) * row_tile, product.w.rows)});
        tile += taken;
        rest -= taken * tile_cost;
      }
    }
  }
  return compute.pieces;
}

void multiply_piece(const Compute& compute, const ProductPiece& piece, const ProductPiece* next) {
  const Product& product = *piece.product;
  compute.kernels.matmul({.w = product.w,
                          .x = product.x->values,
                          .xq = product.x->rounded,
                          .x_rows = product.x_rows,
                          .n = product.n,
                          .y = product.y,
                          .y_rows = product.y_rows,
                          .y_stride = product.y_stride,
                          .row_begin = piece.row_begin,
                          .row_end = piece.row_end,
                          .next = next != nullptr ? first_row(*next) : nullptr,
                          .prefill = compute.prefill});
}

void multiply_rows(const Compute& compute, const Product& product, int64_t begin, int64_t end) {
  HEARTH_CHECK(product.x_rows == nullptr && product.y_rows == nullptr);
  const ActivationRows& x = *product.x;
  compute.kernels.matmul({.w = product.w,
                          .x = x.values + begin * x.width,
                          .xq = x.rounded.codes != nullptr ? x.rounded_at(begin, 0) : x.rounded,
                          .x_rows = nullptr,
                          .n = end - begin,
                          .y = product.y + begin * product.y_stride,
                          .y_rows = nullptr,
                          .y_stride = product.y_stride,
                          .row_begin = 0,
                          .row_end = product.w.rows,
                          .next = nullptr,
                          .prefill = compute.prefill});
}

void multiply(Compute& compute, StageTotals& totals, std::span<const Product> products) {
  count_work(totals, products);
  int64_t row_tile = 1;
  for (const Product& product : products)
    row_tile = std::max(row_tile, row_tile_of(compute, product));
  const auto pieces = cut_into_pieces(compute, products, row_tile);
  compute.workers.for_pieces(std::ssize(pieces), [&](int64_t piece, int64_t next, int) {
    multiply_piece(compute, pieces[piece], next >= 0 ? &pieces[next] : nullptr);
  });
}

}  // namespace hearth
