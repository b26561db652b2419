// However many experts are at hand together, they take two loops over the workers: gate and up with
// all that follows them, then down with the sums; in prompts a third one, for the sums.
#include "model/routed_experts.h"

#include <algorithm>

namespace hearth {
namespace {

Buffer floats(int64_t count) { return Buffer(static_cast<size_t>(count) * sizeof(float)); }
Buffer ints(int64_t count) { return Buffer(static_cast<size_t>(count) * sizeof(int32_t)); }

// Turns gates and ups of a group's slots into hidden values, rounded where asked, in the columns
// that `piece` has computed.
void activate(const Kernels& kernels, const ExpertGroup& group, const ProductPiece& piece,
              bool rounds, const ExpertHidden& hidden) {
  const int64_t columns = piece.row_end - piece.row_begin;
  for (int64_t slot = group.first_slot; slot < group.first_slot + group.n; ++slot) {
    const int64_t at = slot * hidden.rows.width + piece.row_begin;
    float* values = hidden.rows.values + at;
    kernels.swiglu(hidden.gate + at, hidden.up + at, hidden.clamp, columns, values);
    if (rounds) {
      kernels.quantize(values, 1, columns, hidden.rows.rounded_at(slot, piece.row_begin));
    }
  }
}

// The products of the second loop: hidden rows by slot to rows of `out` in routing order.
void list_down_products(ExpertScratch& scratch, std::span<const ExpertGroup> groups,
                        const ActivationRows& hidden) {
  int32_t* slot_rows = scratch.slot_rows.as<int32_t>();
  int32_t* out_rows = scratch.out_rows.as<int32_t>();
  scratch.products.clear();
  for (const ExpertGroup& group : groups) {
    for (int32_t i = 0; i < group.n; ++i) {
      const int32_t slot = group.first_slot + i;
      slot_rows[slot] = slot;
      // Past the shared expert of earlier rows.
      out_rows[slot] = group.picks[i] + group.picks[i] / scratch.used;
    }
    scratch.products.push_back({group.weights.down, &hidden, slot_rows + group.first_slot, group.n,
                                scratch.out.as<float>(), scratch.dim, out_rows + group.first_slot});
  }
}

struct Range {
  int64_t begin;
  int64_t end;
};

// These columns of these rows' sums.
void sum_outputs(const Compute& compute, const ExpertScratch& scratch, const ExpertSums& sums,
                 Range rows, Range columns) {
  const int32_t all = scratch.used + 1;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int32_t terms = sums.terms != nullptr ? sums.terms[row] : all;
    compute.kernels.weighted_sum(scratch.out.as<float>() + row * all * scratch.dim + columns.begin,
                                 scratch.dim, sums.weights + row * all, terms,
                                 columns.end - columns.begin,
                                 sums.y + row * sums.y_stride + columns.begin);
  }
}

// The second loop of decode: each piece computes the same rows of every expert's down, and sums the
// outputs of all experts where these are the last.
void down_and_sum(Compute& compute, StageTotals& totals, ExpertScratch& scratch,
                  const ExpertSums& sums, bool is_last) {
  const std::vector<Product>& products = scratch.products;
  count_work(totals, products);
  const auto pieces = cut_into_pieces(compute, std::span(products).first(1), 16);
  compute.workers.for_pieces(std::ssize(pieces), [&](int64_t i, int64_t next, int) {
    const auto piece_of = [&](int64_t p, size_t product) {
      return ProductPiece{&products[product], pieces[p].row_begin, pieces[p].row_end};
    };
    for (size_t p = 0; p < products.size(); ++p) {
      const bool is_last_product = p + 1 == products.size();
      const int64_t after = is_last_product ? next : i;
      const ProductPiece ahead =
          after >= 0 ? piece_of(after, is_last_product ? 0 : p + 1) : ProductPiece{};
      multiply_piece(compute, piece_of(i, p), after >= 0 ? &ahead : nullptr);
    }
    if (is_last)
      sum_outputs(compute, scratch, sums, {0, sums.n}, {pieces[i].row_begin, pieces[i].row_end});
  });
}

// The same of a prompt in two loops. An expert's rows stay together there: each piece of them has
// to prepare the expert's tokens anew.
void down_then_sum(Compute& compute, StageTotals& totals, ExpertScratch& scratch,
                   const ExpertSums& sums, bool is_last) {
  multiply(compute, totals, scratch.products);
  if (!is_last) return;
  compute.workers.for_range(sums.n, 4, [&](int64_t begin, int64_t end, int) {
    sum_outputs(compute, scratch, sums, {begin, end}, {0, scratch.dim});
  });
}

}  // namespace

void gate_and_up(Compute& compute, StageTotals& totals, std::span<const ExpertGroup> groups,
                 ActivationRows& x, int64_t n, std::vector<Product>& products,
                 const ExpertHidden& hidden) {
  const int64_t width = hidden.rows.width;
  products.clear();
  for (const bool is_up : {false, true}) {
    for (const ExpertGroup& group : groups) {
      const Matrix& w = is_up ? group.weights.up : group.weights.gate;
      round_rows_for(compute, w, x, n);
      float* y = (is_up ? hidden.up : hidden.gate) + group.first_slot * width;
      products.push_back({w, &x, group.rows, group.n, y, width});
    }
  }
  count_work(totals, products);

  const bool rounds = reads_rounded(compute.kernels, groups.front().weights.down, compute.prefill);
  const auto gates = std::span(products).first(groups.size());
  const auto pieces = cut_into_pieces(compute, gates, kQuantBlock);
  // Each piece computes the same rows of gate and up and turns them into hidden values.
  compute.workers.for_pieces(std::ssize(pieces), [&](int64_t i, int64_t next, int) {
    const ProductPiece& piece = pieces[i];
    const ProductPiece up{piece.product + gates.size(), piece.row_begin, piece.row_end};
    multiply_piece(compute, piece, &up);
    multiply_piece(compute, up, next >= 0 ? &pieces[next] : nullptr);
    activate(compute.kernels, groups[piece.product - gates.data()], piece, rounds, hidden);
  });
  hidden.rows.is_rounded = rounds;
}

ExpertScratch::ExpertScratch(const ModelConfig& config, const Kernels& kernels, int64_t n)
    : used(config.experts_used),
      dim(config.dim),
      gate(floats(n * used * config.expert_dim)),
      up(floats(n * used * config.expert_dim)),
      hidden(kernels, n * used, config.expert_dim),
      slot_rows(ints(n * used)),
      out_rows(ints(n * used)),
      out(floats(n * (used + 1) * dim)) {
  products.reserve(2 * std::min<int64_t>(config.experts, n * used));
}

std::vector<const Buffer*> ExpertScratch::buffers() const {
  return {&gate, &up, &hidden.memory(), &slot_rows, &out_rows, &out};
}

void routed_experts(Compute& compute, StageTotals& totals, ExpertScratch& scratch,
                    ExpertStore& store, const ExpertSums& sums,
                    const std::function<void()>& between) {
  const StageTimer timer(totals);
  const ExpertHidden hidden{scratch.gate.as<float>(), scratch.up.as<float>(),
                            scratch.hidden.fresh(), sums.clamp};
  for (auto groups = store.next(); !groups.empty(); groups = store.next()) {
    gate_and_up(compute, totals, groups, sums.x, sums.n, scratch.products, hidden);
    list_down_products(scratch, groups, hidden.rows);
    const auto down = compute.prefill ? down_then_sum : down_and_sum;
    down(compute, totals, scratch, sums, store.is_done());
    if (between) between();
  }
}

}  // namespace hearth
