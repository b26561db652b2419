// The experts: every routed group and the shared expert, summed per token in routing order, so that
// a token's result does not depend on how tokens were grouped or where weights lay.
//
// However many experts are at hand together, they take two loops over the workers: gate and up with
// all that follows them, then down.
#include <algorithm>

#include "model/step.h"

namespace hearth {
namespace {

// What experts keep between the two loops, a row a slot.
struct Hidden {
  float* gate;  // [slots, width]
  float* up;    // [slots, width]
  ActivationRows& rows;
  float clamp;
};

// hidden = silu(min(gate, clamp)) * clamp(up), rounded where asked, for a group's slots in the
// columns that `piece` has computed.
void activate(const Kernels& kernels, const ExpertGroup& group, const ProductPiece& piece,
              bool rounds, const Hidden& hidden) {
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

// The first loop: each piece computes the same rows of gate and up and turns them into hidden
// values.
void gate_and_up(Step& step, StageTotals& totals, std::span<const ExpertGroup> groups,
                 const Hidden& hidden) {
  Compute& compute = step.compute;
  std::vector<Product>& products = step.act.products;
  ActivationRows& x = step.act.x.rows();
  const int64_t width = hidden.rows.width;
  products.clear();
  for (const bool is_up : {false, true}) {
    for (const ExpertGroup& group : groups) {
      const Matrix& w = is_up ? group.weights.up : group.weights.gate;
      round_rows_for(compute, w, x, step.batch.n());
      float* y = (is_up ? hidden.up : hidden.gate) + group.first_slot * width;
      products.push_back({w, &x, group.rows, group.n, y, width});
    }
  }
  count_work(totals, products);

  const bool rounds = reads_rounded(compute.kernels, groups.front().weights.down, compute.prefill);
  const auto gates = std::span(products).first(groups.size());
  const auto pieces = cut_into_pieces(compute, gates, kQuantBlock);
  compute.workers.for_pieces(std::ssize(pieces), [&](int64_t i, int64_t next, int) {
    const ProductPiece& piece = pieces[i];
    const ProductPiece up{piece.product + gates.size(), piece.row_begin, piece.row_end};
    multiply_piece(compute, piece, &up);
    multiply_piece(compute, up, next >= 0 ? &pieces[next] : nullptr);
    activate(compute.kernels, groups[piece.product - gates.data()], piece, rounds, hidden);
  });
  hidden.rows.is_rounded = rounds;
}

void shared_expert(Step& step, const ExpertWeights& weights, float clamp) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  StageTotals& totals = step.compute.clock[Stage::kSharedExpert];
  const StageTimer timer(totals);

  const Hidden hidden{act.shared_gate.as<float>(), act.shared_up.as<float>(),
                      act.shared_hidden.fresh(), clamp};
  const ExpertGroup everyone{0, weights, nullptr, nullptr, step.batch.n(), 0};
  gate_and_up(step, totals, {&everyone, 1}, hidden);

  const int64_t out_stride = (config.experts_used + 1) * act.dim;
  const Product down{weights.down,
                     &hidden.rows,
                     nullptr,
                     everyone.n,
                     act.expert_out.as<float>() + config.experts_used * act.dim,
                     out_stride};
  multiply(step.compute, totals, {&down, 1});
}

// The products of the second loop: hidden rows by slot to rows of expert_out in routing order.
void list_down_products(Step& step, std::span<const ExpertGroup> groups,
                        const ActivationRows& hidden) {
  Activations& act = step.act;
  int32_t* slot_rows = act.slot_rows.as<int32_t>();
  int32_t* out_rows = act.out_rows.as<int32_t>();
  act.products.clear();
  for (const ExpertGroup& group : groups) {
    for (int32_t i = 0; i < group.n; ++i) {
      const int32_t slot = group.first_slot + i;
      slot_rows[slot] = slot;
      // Past the shared expert of earlier rows.
      out_rows[slot] = group.picks[i] + group.picks[i] / step.config.experts_used;
    }
    act.products.push_back({group.weights.down, &hidden, slot_rows + group.first_slot, group.n,
                            act.expert_out.as<float>(), act.dim, out_rows + group.first_slot});
  }
}

// The outputs of every token's experts, columns begin .. end - 1, in routing order.
void sum_outputs(const Step& step, int64_t begin, int64_t end) {
  const Activations& act = step.act;
  const int32_t outputs = step.config.experts_used + 1;
  for (int32_t row = 0; row < step.batch.n(); ++row) {
    step.compute.kernels.weighted_sum(act.expert_out.as<float>() + row * outputs * act.dim + begin,
                                      act.dim, act.pick_weights.as<float>() + row * outputs,
                                      outputs, end - begin, act.output_row(row) + begin);
  }
}

// The second loop: each piece computes the same rows of every expert's down, and sums the outputs
// of all experts where these are the last.
void down_and_sum(Step& step, StageTotals& totals, bool is_last) {
  const Compute& compute = step.compute;
  const int64_t row_tile = compute.prefill ? kPrefillRowTile : 16;
  const Activations& act = step.act;
  count_work(totals, act.products);
  const auto pieces = cut_into_pieces(step.compute, std::span(act.products).first(1), row_tile);
  compute.workers.for_pieces(std::ssize(pieces), [&](int64_t i, int64_t next, int) {
    const auto piece_of = [&](int64_t p, size_t product) {
      return ProductPiece{&act.products[product], pieces[p].row_begin, pieces[p].row_end};
    };
    for (size_t p = 0; p < act.products.size(); ++p) {
      const bool is_last_product = p + 1 == act.products.size();
      const int64_t after = is_last_product ? next : i;
      const ProductPiece ahead =
          after >= 0 ? piece_of(after, is_last_product ? 0 : p + 1) : ProductPiece{};
      multiply_piece(compute, piece_of(i, p), after >= 0 ? &ahead : nullptr);
    }
    if (is_last) sum_outputs(step, pieces[i].row_begin, pieces[i].row_end);
  });
}

// In the order in which the store has them at hand. Where a read fails the rest is left out, and
// the store knows.
void routed_experts(Step& step, float clamp, ExpertStore& store) {
  Activations& act = step.act;
  StageTotals& totals = step.compute.clock[Stage::kRoutedExperts];
  const StageTimer timer(totals);
  const Hidden hidden{act.expert_gate.as<float>(), act.expert_up.as<float>(),
                      act.expert_hidden.fresh(), clamp};
  for (auto groups = store.next(); !groups.empty(); groups = store.next()) {
    gate_and_up(step, totals, groups, hidden);
    list_down_products(step, groups, hidden.rows);
    down_and_sum(step, totals, store.is_done());
  }
}

}  // namespace

void experts(Step& step, int32_t layer, const MoeWeights& weights, ExpertStore& store) {
  shared_expert(step, weights.shared, step.config.shared_clamp[layer]);
  routed_experts(step, step.config.expert_clamp[layer], store);
}

}  // namespace hearth
