// The experts: every routed group and the shared expert, summed per token in routing order, so that
// a token's result does not depend on how tokens were grouped or where weights lay.
#include <array>

#include "model/step.h"

namespace hearth {
namespace {

// hidden = silu(min(gate, clamp)) * clamp(up) for `rows` rows of `width` values.
void activate(Step& step, const Buffer& gate, const Buffer& up, float clamp, int64_t rows,
              ActivationRows& hidden) {
  const int64_t width = hidden.width;
  step.compute.workers.for_range(rows, 2, [&](int64_t begin, int64_t end, int) {
    step.compute.kernels.swiglu(gate.as<float>() + begin * width, up.as<float>() + begin * width,
                                clamp, (end - begin) * width, hidden.values + begin * width);
  });
}

void shared_expert(Step& step, const ExpertWeights& weights, float clamp) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  const int64_t n = step.batch.n();
  StageTotals& totals = step.compute.clock[Stage::kSharedExpert];
  const StageTimer timer(totals);

  ActivationRows& x = act.x.rows();
  round_rows_for(step.compute, weights.gate.type, x, n);
  round_rows_for(step.compute, weights.up.type, x, n);
  const std::array inputs = {
      Product{weights.gate, &x, nullptr, n, act.shared_gate.as<float>(), config.shared_dim},
      Product{weights.up, &x, nullptr, n, act.shared_up.as<float>(), config.shared_dim}};
  multiply(step.compute, totals, inputs);

  ActivationRows& hidden = act.shared_hidden.fresh();
  activate(step, act.shared_gate, act.shared_up, clamp, n, hidden);
  round_rows_for(step.compute, weights.down.type, hidden, n);
  const int64_t out_stride = (config.experts_used + 1) * act.dim;
  const Product output{
      weights.down, &hidden, nullptr, n, act.expert_out.as<float>() + config.experts_used * act.dim,
      out_stride};
  multiply(step.compute, totals, {&output, 1});
}

// Down-projections read hidden rows by slot and write expert_out rows in routing order.
void routed_experts(Step& step, int32_t layer, float clamp, ExpertStore& store) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  const int32_t used = config.experts_used;
  const int64_t slots = static_cast<int64_t>(step.batch.n()) * used;
  StageTotals& totals = step.compute.clock[Stage::kRoutedExperts];
  const StageTimer timer(totals);

  const GroupedExperts grouped =
      store.group(layer, {step.batch.n(), used, act.picks.as<int32_t>()});
  ActivationRows& x = act.x.rows();
  act.products.clear();
  for (const ExpertGroup& group : grouped.on_cpu) {
    round_rows_for(step.compute, group.weights.gate.type, x, step.batch.n());
    round_rows_for(step.compute, group.weights.up.type, x, step.batch.n());
    const int64_t at = static_cast<int64_t>(group.first_slot) * config.expert_dim;
    act.products.push_back({group.weights.gate, &x, group.rows, group.n,
                            act.expert_gate.as<float>() + at, config.expert_dim});
    act.products.push_back({group.weights.up, &x, group.rows, group.n,
                            act.expert_up.as<float>() + at, config.expert_dim});
  }
  multiply(step.compute, totals, act.products);

  ActivationRows& hidden = act.expert_hidden.fresh();
  activate(step, act.expert_gate, act.expert_up, clamp, slots, hidden);
  int32_t* slot_rows = act.slot_rows.as<int32_t>();
  int32_t* out_rows = act.out_rows.as<int32_t>();
  act.products.clear();
  for (const ExpertGroup& group : grouped.on_cpu) {
    round_rows_for(step.compute, group.weights.down.type, hidden, slots);
    for (int32_t i = 0; i < group.n; ++i) {
      const int32_t slot = group.first_slot + i;
      slot_rows[slot] = slot;
      out_rows[slot] =
          group.picks[i] + group.picks[i] / used;  // past the shared expert of earlier rows
    }
    act.products.push_back({group.weights.down, &hidden, slot_rows + group.first_slot, group.n,
                            act.expert_out.as<float>(), act.dim, out_rows + group.first_slot});
  }
  multiply(step.compute, totals, act.products);
}

void sum_experts(Step& step) {
  Activations& act = step.act;
  const StageTimer timer(step.compute.clock[Stage::kRoutedExperts]);
  const int32_t outputs = step.config.experts_used + 1;
  step.compute.workers.for_range(step.batch.n(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      step.compute.kernels.weighted_sum(act.expert_out.as<float>() + row * outputs * act.dim,
                                        act.dim, act.pick_weights.as<float>() + row * outputs,
                                        outputs, act.dim,
                                        act.output_row(static_cast<int32_t>(row)));
    }
  });
}

}  // namespace

void experts(Step& step, int32_t layer, const MoeWeights& weights, ExpertStore& store) {
  shared_expert(step, weights.shared, step.config.shared_clamp[layer]);
  routed_experts(step, layer, step.config.expert_clamp[layer], store);
  sum_experts(step);
}

}  // namespace hearth
