#include "model/linear.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {
namespace {

// A piece takes this part of what is left for its thread: long streams first, short ones last, so
// that threads end a loop together.
constexpr int64_t kPartsOfRest = 3;
constexpr int64_t kPieceBytesMin = 32 << 10;
constexpr int64_t kFewRowTile = 4;  // whole row tiles of the kernels, for few tokens and for many
constexpr int64_t kManyRowTile = 16;
constexpr int64_t kFewTokens = 4;

// The work of a row of a product, in bytes touched: weights once, activations per row.
int64_t row_cost(const Product& product) {
  return row_bytes(product.w.type, product.w.cols) + product.n * product.w.cols / 4;
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

QuantizedRows ActivationRows::rounded_at(int64_t row, int64_t column) const {
  return advance(rounded, row * width + column);
}

void count_work(StageTotals& totals, std::span<const Product> products) {
  for (const Product& product : products) {
    HEARTH_CHECK(product.x->width == product.w.cols);
    HEARTH_CHECK(product.x->is_rounded || !reads_quantized(product.w.type));
    totals.bytes += product.w.rows * row_bytes(product.w.type, product.w.cols);
    totals.flops += 2 * product.w.rows * product.w.cols * product.n;
  }
}

std::span<const ProductPiece> cut_into_pieces(Compute& compute, std::span<const Product> products,
                                              int64_t row_tile) {
  const int nodes = compute.workers.nodes();
  int64_t node_cost = 0;
  for (const Product& product : products) node_cost += product.w.rows * row_cost(product) / nodes;
  const int64_t parts = kPartsOfRest * std::max(compute.workers.threads() / nodes, 1);

  // Node by node, as the workers begin: each has its share of every matrix's rows.
  compute.pieces.clear();
  for (int node = 0; node < nodes; ++node) {
    int64_t rest = node_cost;
    for (const Product& product : products) {
      const int64_t tile_cost = row_cost(product) * row_tile;
      const int64_t tiles = (product.w.rows + row_tile - 1) / row_tile;
      const int64_t end = node_share_begin(tiles, node + 1, nodes);
      for (int64_t tile = node_share_begin(tiles, node, nodes); tile < end;) {
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

void multiply_piece(const Kernels& kernels, const ProductPiece& piece) {
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

void multiply(Compute& compute, StageTotals& totals, std::span<const Product> products) {
  count_work(totals, products);
  const bool few = std::ranges::all_of(products, [](auto& p) { return p.n <= kFewTokens; });
  const auto pieces = cut_into_pieces(compute, products, few ? kFewRowTile : kManyRowTile);
  compute.workers.for_range(std::ssize(pieces), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) multiply_piece(compute.kernels, pieces[i]);
  });
}

}  // namespace hearth
