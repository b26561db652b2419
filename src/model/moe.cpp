// The experts: the shared one, then all that were picked, summed per token in routing order.
#include "model/step.h"

namespace hearth {
namespace {

void shared_expert(Step& step, const ExpertWeights& weights, float clamp) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  StageTotals& totals = step.compute.clock[Stage::kSharedExpert];
  const StageTimer timer(totals);

  const ExpertHidden hidden{act.shared_gate.as<float>(), act.shared_up.as<float>(),
                            act.shared_hidden.fresh(), clamp};
  const ExpertGroup everyone{0, weights, nullptr, nullptr, step.batch.n(), 0};
  gate_and_up(step.compute, totals, {&everyone, 1}, act.x.rows(), step.batch.n(), act.products,
              hidden);

  const int64_t out_stride = (config.experts_used + 1) * act.dim;
  const Product down{weights.down,
                     &hidden.rows,
                     nullptr,
                     everyone.n,
                     act.experts.out.as<float>() + config.experts_used * act.dim,
                     out_stride};
  multiply(step.compute, totals, {&down, 1});
}

}  // namespace

void experts(Step& step, int32_t layer, const MoeWeights& weights, ExpertStore& store) {
  shared_expert(step, weights.shared, step.config.shared_clamp[layer]);
  Activations& act = step.act;
  const ExpertSums sums{
      act.x.rows(),      step.batch.n(),     act.pick_weights.as<float>(),   nullptr,
      act.output_row(0), act.streams_stride, step.config.expert_clamp[layer]};
  routed_experts(step.compute, step.compute.clock[Stage::kRoutedExperts], act.experts, store, sums);
}

}  // namespace hearth
