// Which experts a token goes to: by a table of token ids in the first layers, by learned scores in
// the others.
#include <algorithm>
#include <cmath>

#include "model/step.h"

namespace hearth {
namespace {

// sqrt(softplus(x)), softplus(x) = log(1 + e^x) without overflow.
float score(float x) { return std::sqrt(x > 20 ? x : std::log1p(std::exp(x))); }

// The `used` experts with the largest score + bias, best first; the lower index wins a tie.
void pick_best(const float* scores, const Vector& bias, int32_t experts, int32_t used,
               int32_t* picks) {
  auto biased = [&](int32_t e) { return scores[e] + bias[e]; };
  int32_t held = 0;
  for (int32_t e = 0; e < experts; ++e) {
    if (held == used && biased(e) <= biased(picks[held - 1])) continue;
    int32_t place = held < used ? held++ : held - 1;
    for (; place > 0 && biased(e) > biased(picks[place - 1]); --place) {
      picks[place] = picks[place - 1];
    }
    picks[place] = e;
  }
}

// The chosen scores, normed to sum to one where the model says so, times the routing scale.
void weigh_picks(const ModelConfig& config, const float* scores, const int32_t* picks,
                 float* weights) {
  float sum = 0;
  for (int32_t k = 0; k < config.experts_used; ++k) sum += scores[picks[k]];
  const float scale = config.expert_norm ? config.expert_scale / sum : config.expert_scale;
  for (int32_t k = 0; k < config.experts_used; ++k) weights[k] = scores[picks[k]] * scale;
}

}  // namespace

void guess_picks(Step& step, const MoeWeights& next, int32_t count, std::vector<int32_t>& picks) {
  const ModelConfig& config = step.config;
  StageTotals& totals = step.compute.clock[Stage::kRouter];
  const StageTimer timer(totals);
  ActivationRows& x = step.act.x.rows();
  round_rows_for(step.compute, next.router, x, 1);
  float* scores = step.act.guess_scores.as<float>();
  const Product product{next.router, &x, nullptr, 1, scores, config.experts};
  multiply(step.compute, totals, {&product, 1});
  for (int32_t e = 0; e < config.experts; ++e) scores[e] = score(scores[e]);
  picks.resize(count);
  pick_best(scores, next.bias, config.experts, count, picks.data());
}

void route(Step& step, int32_t layer, const MoeWeights& weights) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  const int64_t n = step.batch.n();
  const int32_t used = config.experts_used;
  StageTotals& totals = step.compute.clock[Stage::kRouter];
  const StageTimer timer(totals);

  ActivationRows& x = act.x.rows();
  round_rows_for(step.compute, weights.router, x, n);
  const Product product{weights.router, &x, nullptr, n, act.router_scores.as<float>(),
                        config.experts};
  multiply(step.compute, totals, {&product, 1});

  step.compute.workers.for_range(n, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* scores = act.router_scores.as<float>() + row * config.experts;
      int32_t* picks = act.picks.as<int32_t>() + row * used;
      float* pick_weights = act.pick_weights.as<float>() + row * (used + 1);
      for (int32_t e = 0; e < config.experts; ++e) scores[e] = score(scores[e]);
      if (layer < config.hash_layers) {
        const int64_t token = step.batch.rows[row].token;
        std::copy_n(weights.hash_table.data() + token * used, used, picks);
      } else {
        pick_best(scores, weights.bias, config.experts, used, picks);
      }
      weigh_picks(config, scores, picks, pick_weights);
      pick_weights[used] = 1;
    }
  });
}

}  // namespace hearth
