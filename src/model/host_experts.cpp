#include "model/host_experts.h"

#include <algorithm>

#include "base/check.h"

namespace hearth {

HostExperts::HostExperts(const ModelConfig& config, const Kernels& kernels, const Workers& workers,
                         const Limits& limits, ExpertStore& store)
    : config_(config),
      is_lent_(config.experts),
      compute_{kernels, workers, {}, {}, false},
      x_(kernels, limits.chunk_tokens, config.dim),
      scratch_(config, kernels, limits.chunk_tokens),
      store_(store),
      picks_(static_cast<size_t>(limits.chunk_tokens) * config.experts_used),
      weights_(static_cast<size_t>(limits.chunk_tokens) * (config.experts_used + 1)),
      counts_(limits.chunk_tokens) {
  x_.memory().commit(workers);
  commit(scratch_.buffers(), workers);
}

void HostExperts::begin(int32_t layer, const HostExpertWork& work) {
  HEARTH_CHECK(work.n <= std::ssize(counts_));
  layer_ = layer;
  work_ = work;
  std::ranges::fill(is_lent_, uint8_t{0});
  for (const int32_t expert : work.lent) is_lent_[expert] = 1;
  take_picks(work);
  store_.begin_layer(layer, {static_cast<int32_t>(work.n), config_.experts_used, picks_.data(),
                             work.lent, work.picks});
}

void HostExperts::run(StageTotals& totals, const std::function<void()>& between) {
  const HostExpertWork& work = work_;
  compute_.prefill = work.prefill;
  ActivationRows& x = x_.fresh();
  std::copy_n(work.x, work.n * config_.dim, x.values);
  if (store_.is_done()) std::fill_n(work.y, work.n * config_.dim, 0.0f);
  routed_experts(compute_, totals, scratch_, store_,
                 {x, work.n, weights_.data(), counts_.data(), work.y, config_.dim,
                  config_.expert_clamp[layer_]},
                 between);
}

// Each row's picks, and their weights, without the gaps between them.
void HostExperts::take_picks(const HostExpertWork& work) {
  const int32_t used = config_.experts_used;
  for (int64_t row = 0; row < work.n; ++row) {
    int32_t* picks = picks_.data() + row * used;
    float* weights = weights_.data() + row * (used + 1);
    int32_t count = 0;
    for (int32_t k = 0; k < used; ++k) {
      const int32_t pick = work.picks[row * used + k];
      if (pick < 0 || is_lent_[pick] != 0) continue;
      picks[count] = pick;
      weights[count++] = work.weights[row * (used + 1) + k];
    }
    std::fill(picks + count, picks + used, -1);
    counts_[row] = count;
  }
}

int64_t HostExperts::bytes() const {
  return x_.bytes() + scratch_.bytes() +
         static_cast<int64_t>(picks_.size() * sizeof(int32_t) + weights_.size() * sizeof(float) +
                              counts_.size() * sizeof(int32_t));
}

int64_t host_expert_bytes(const ModelConfig& config, const Kernels& kernels, int64_t n) {
  const int64_t used = config.experts_used;
  return ActivationBuffer(kernels, n, config.dim).bytes() +
         ExpertScratch(config, kernels, n).bytes() +
         n * (used * int64_t{sizeof(int32_t)} + (used + 1) * int64_t{sizeof(float)} +
              int64_t{sizeof(int32_t)});
}

}  // namespace hearth
