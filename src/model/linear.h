// Products of activation rows with stored matrices, split among the workers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/workers.h"
#include "cpu_kernels/kernels.h"
#include "model/stages.h"

namespace hearth {

// Activation rows as float32, and rounded once a block format asks for them.
struct ActivationRows {
  float* values = nullptr;  // [n, width]
  RoundedRows rounded{};
  int64_t width = 0;
  bool is_rounded = false;  // whether `rounded` holds the present values

  // Where the rounded form of row `row` lies from column `column` on, a multiple of 32.
  RoundedRows rounded_at(int64_t row, int64_t column) const;
};

// Owns the memory of `n_max` rows of `width` values, rounded the way `kernels` read them.
class ActivationBuffer {
 public:
  ActivationBuffer() = default;
  ActivationBuffer(const Kernels& kernels, int64_t n_max, int64_t width);
  ActivationRows& rows() { return rows_; }
  // The rows, about to be written anew.
  ActivationRows& fresh();
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  const Buffer& memory() const { return memory_; }
  float* values() const { return rows_.values; }

 private:
  Buffer memory_;
  ActivationRows rows_;
};

// One matrix times some rows: y[y_rows[i], r] = w[r] . x[x_rows[i]].
struct Product {
  Matrix w;
  const ActivationRows* x;
  const int32_t* x_rows;  // [n], or null for rows 0 .. n-1
  int64_t n;
  float* y;  // [.., y_stride]
  int64_t y_stride;
  const int32_t* y_rows = nullptr;  // as x_rows
};

// A range of one product's rows, the unit of work.
struct ProductPiece {
  const Product* product;
  int64_t row_begin;
  int64_t row_end;
};

constexpr int64_t kPrefillRowTile = 64;  // rows of a piece, at least, where tokens are many

// What the steps of the model compute with; everything but the kernels belongs to the thread that
// runs the model.
struct Compute {
  const Kernels& kernels;
  const Workers& workers;
  StageClock clock;
  std::vector<ProductPiece> pieces;  // scratch of multiply
  bool prefill = false;              // as in MatmulParams, of the step at hand
};

// Rounds the first `n` rows, if they aren't yet and `w` reads them so.
void round_rows_for(const Compute& compute, const Matrix& w, ActivationRows& x, int64_t n);

// Runs all products as one loop over the workers and counts what they read and compute. Rows that
// block formats read must have been rounded.
void multiply(Compute& compute, StageTotals& totals, std::span<const Product> products);

// The parts of multiply, for loops that do more with a piece. Pieces are whole multiples of
// `row_tile` rows and valid until the next cut.
void count_work(StageTotals& totals, std::span<const Product> products);
std::span<const ProductPiece> cut_into_pieces(Compute& compute, std::span<const Product> products,
                                              int64_t row_tile);
// `next`: the piece this thread multiplies afterwards, where it is known; its weights are asked
// for.
void multiply_piece(const Compute& compute, const ProductPiece& piece,
                    const ProductPiece* next = nullptr);

// All of a product's matrix with rows begin .. end - 1 of its activations, on the calling thread.
void multiply_rows(const Compute& compute, const Product& product, int64_t begin, int64_t end);

}  // namespace hearth
