#include "model/linear.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {
namespace {

constexpr int64_t kPiecesPerThread = 8;  // enough that a slow thread delays the others little
constexpr int64_t kRowTile = 16;         // pieces are whole multiples of the kernels' row tiles

int64_t weight_bytes(const Product& product) {
  return product.w.rows * row_bytes(product.w.type, product.w.cols);
}

// The work of a row of a product, in bytes touched: weights once, activations per row.
int64_t row_cost(const Product& product) {
  return row_bytes(product.w.type, product.w.cols) + product.n * product.w.cols / 4;
}

void cut_into_pieces(Compute& compute, std::span<const Product> products) {
  int64_t total_cost = 0;
  for (const Product& product : products) total_cost += product.w.rows * row_cost(product);
  const int64_t piece_cost = total_cost / (kPiecesPerThread * compute.workers.threads()) + 1;

  compute.pieces.clear();
  for (const Product& product : products) {
    const int64_t tiles = std::max<int64_t>(piece_cost / row_cost(product) / kRowTile, 1);
    const int64_t rows = tiles * kRowTile;
    for (int64_t begin = 0; begin < product.w.rows; begin += rows) {
      compute.pieces.push_back({&product, begin, std::min(begin + rows, product.w.rows)});
    }
  }
}

void run_piece(const Kernels& kernels, const ProductPiece& piece) {
  const Product& product = *piece.product;
  kernels.matmul({.w = product.w,
                  .x = product.x->values,
                  .xq = product.x->rounded,
                  .x_rows = product.x_rows,
                  .n = product.n,
                  .y = product.y,
                  .y_rows = product.y_rows,
                  .y_stride = product.y_stride,
                  .row_begin = piece.row_begin,
                  .row_end = piece.row_end});
}

QuantizedRows advance(const QuantizedRows& rounded, int64_t values) {
  return {rounded.codes + values, rounded.scales + values / kQuantBlock,
          rounded.sums + values / kQuantHalf};
}

}  // namespace

ActivationRows ActivationRows::view(int64_t offset, int64_t new_width) const {
  ActivationRows result = *this;
  result.values += offset;
  result.width = new_width;
  const bool can_round = offset % kQuantBlock == 0 && new_width % kQuantBlock == 0;
  if (rounded.codes != nullptr && can_round) {
    result.rounded = advance(rounded, offset);
  } else {
    result.rounded = {};
    result.is_rounded = false;
  }
  return result;
}

ActivationBuffer::ActivationBuffer(int64_t n_max, int64_t width) {
  const size_t count = static_cast<size_t>(n_max * width);
  const bool can_round = width % kQuantBlock == 0;
  const size_t floats = count + (can_round ? count / kQuantBlock + count / kQuantHalf : 0);
  memory_ = Buffer(floats * sizeof(float) + (can_round ? count : 0));
  rows_.values = memory_.as<float>();
  rows_.width = width;
  if (can_round) {
    rows_.rounded.scales = rows_.values + count;
    rows_.rounded.sums = rows_.rounded.scales + count / kQuantBlock;
    rows_.rounded.codes = reinterpret_cast<int8_t*>(rows_.values + floats);
  }
}

ActivationRows& ActivationBuffer::fresh() {
  rows_.is_rounded = false;
  return rows_;
}

void round_rows_for(const Compute& compute, TensorType type, ActivationRows& x, int64_t n) {
  if (x.is_rounded || !reads_quantized(type)) return;
  HEARTH_CHECK(x.rounded.codes != nullptr);
  compute.workers.for_range(n, 4, [&](int64_t begin, int64_t end, int) {
    compute.kernels.quantize(x.values + begin * x.width, end - begin, x.width,
                             advance(x.rounded, begin * x.width));
  });
  x.is_rounded = true;
}

void multiply(Compute& compute, StageTotals& totals, std::span<const Product> products) {
  for (const Product& product : products) {
    HEARTH_CHECK(product.x->width == product.w.cols);
    HEARTH_CHECK(product.x->is_rounded || !reads_quantized(product.w.type));
    totals.bytes += weight_bytes(product);
    totals.flops += 2 * product.w.rows * product.w.cols * product.n;
  }
  cut_into_pieces(compute, products);
  compute.workers.for_range(std::ssize(compute.pieces), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) run_piece(compute.kernels, compute.pieces[i]);
  });
}

}  // namespace hearth
