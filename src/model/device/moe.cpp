// The router, then the experts: the shared one and the picked ones, summed per token in routing
// order.
#include "model/device/step.h"

namespace hearth {
namespace {

void expert_hidden(const DeviceStep& step, const DeviceExperts& weights, const GpuPicks& picks,
                   float clamp, DeviceRows& hidden) {
  const bool in_bfloat16 = picks.tile_size > kGpuTilePicks;
  if (in_bfloat16) {
    convert_rows(step, step.act.x, step.batch.n);
  } else {
    round_rows_for(step, weights.gate.type, step.act.x, step.batch.n);
  }
  step.kernels.expert_hidden({.picks = picks,
                              .gate = weights.gate,
                              .up = weights.up,
                              .x = step.act.x.values,
                              .xq = step.act.x.rounded,
                              .clamp = clamp,
                              .hidden = hidden.fresh().values,
                              .bfloat16s = step.act.x.bfloat16s,
                              .hidden_bfloat16s = hidden.bfloat16s},
                             step.stream);
  if (!in_bfloat16) round_rows_for(step, weights.down.type, hidden, picks.n * picks.used);
}

void expert_output(const DeviceStep& step, const DeviceExperts& weights, const GpuPicks& picks,
                   int32_t first_term, const DeviceRows& hidden) {
  step.kernels.expert_output({.picks = picks,
                              .down = weights.down,
                              .hidden = hidden.values,
                              .hidden_q = hidden.rounded,
                              .terms = step.config.experts_used + 1,
                              .first_term = first_term,
                              .out = step.act.expert_out,
                              .hidden_bfloat16s = hidden.bfloat16s},
                             step.stream);
}

int32_t tile_size(const DeviceStep& step, const DeviceExperts& weights, const GpuPicks& picks) {
  if (!step.batch.prefill) return kGpuTilePicks;
  return step.kernels.expert_tile_size(picks, weights.gate, weights.down);
}

void shared_expert(const DeviceStep& step, const DeviceExperts& weights, float clamp) {
  step.meter.mark(Stage::kSharedExpert);
  for (const GpuExpertMatrices* w : {&weights.gate, &weights.up, &weights.down}) {
    count_product(step.meter.totals(), w->type, w->rows, w->cols, step.batch.n);
  }
  GpuPicks everyone{.picks = nullptr, .tiles = {}, .n = step.batch.n, .used = 1, .experts = 1};
  everyone.tile_size = tile_size(step, weights, everyone);
  expert_hidden(step, weights, everyone, clamp, step.act.shared_hidden);
  expert_output(step, weights, everyone, step.config.experts_used, step.act.shared_hidden);
}

// Rows that share an expert share its weights; a row alone shares none.
GpuPicks tile_picks(const DeviceStep& step, const DeviceExperts& weights) {
  const ModelConfig& config = step.config;
  GpuPicks picks{.picks = step.act.picks,
                 .tiles = {},
                 .n = step.batch.n,
                 .used = config.experts_used,
                 .experts = config.experts};
  if (picks.n == 1) return picks;
  picks.tiles = step.act.tiles;
  picks.tile_size = tile_size(step, weights, picks);
  step.kernels.tile_picks({.picks = picks.picks,
                           .data = weights.gate.data,
                           .n = picks.n,
                           .used = picks.used,
                           .experts = picks.experts,
                           .tiles = picks.tiles,
                           .tile_size = picks.tile_size},
                          step.stream);
  return picks;
}

}  // namespace

void route(const DeviceStep& step, const DeviceMoe& weights) {
  const ModelConfig& config = step.config;
  DeviceScratch& act = step.act;
  step.meter.mark(Stage::kRouter);
  multiply(step, weights.router, act.x, step.batch.n, act.router_logits, config.experts);
  step.kernels.route({.logits = act.router_logits,
                      .bias = weights.bias,
                      .hash_table = weights.hash_table,
                      .tokens = step.batch.tokens,
                      .n = step.batch.n,
                      .experts = config.experts,
                      .used = config.experts_used,
                      .norm = config.expert_norm,
                      .scale = config.expert_scale,
                      .picks = act.picks,
                      .weights = act.pick_weights},
                     step.stream);
}

void experts(const DeviceStep& step, int32_t layer, const DeviceMoe& weights,
             const DeviceExperts& routed) {
  shared_expert(step, weights.shared, step.config.shared_clamp[layer]);
  routed_experts(step, layer, routed);
}

void routed_experts(const DeviceStep& step, int32_t layer, const DeviceExperts& routed) {
  step.meter.mark(Stage::kRoutedExperts);
  const GpuPicks picks = tile_picks(step, routed);
  expert_hidden(step, routed, picks, step.config.expert_clamp[layer], step.act.expert_hidden);
  expert_output(step, routed, picks, 0, step.act.expert_hidden);
}

void sum_experts(const DeviceStep& step, const DeviceExperts& routed, const float* elsewhere) {
  step.meter.mark(Stage::kRoutedExperts);
  step.kernels.sum_experts({.outputs = step.act.expert_out,
                            .weights = step.act.pick_weights,
                            .picks = step.act.picks,
                            .data = routed.gate.data,
                            .elsewhere = elsewhere,
                            .n = step.batch.n,
                            .used = step.config.experts_used,
                            .dim = step.config.dim,
                            .out = step.act.output},
                           step.stream);
}

}  // namespace hearth
