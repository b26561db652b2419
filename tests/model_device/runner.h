// A model on the device of these tests: the fake one with emulated threads, or a GPU with --device
// cuda.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/check.h"
#include "cpu_kernels/registry.h"
#include "loaded_model.h"
#include "model/device/forward.h"
#include "open_device.h"
#include "support.h"

namespace hearth::test {

using Floats = std::vector<float>;

// A model of one block: long contexts are cheap with it.
inline Model only_layer(const Model& model, int32_t layer) {
  Model one = model;
  one.config.layers = 1;
  one.config.kinds = {model.config.kinds[layer]};
  one.config.hash_layers = layer < model.config.hash_layers ? 1 : 0;
  one.config.expert_clamp = {model.config.expert_clamp[layer]};
  one.config.shared_clamp = {model.config.shared_clamp[layer]};
  one.weights.layers = {model.weights.layers[layer]};
  return one;
}

inline std::vector<int32_t> first_tokens(const char* name, int64_t count) {
  const std::vector<int32_t> ids = read_ids(data(name));
  return {ids.begin(), ids.begin() + count};
}

// As the program has them, but small, and with logits of every row.
inline Limits small_limits(int32_t chunk_min = 1) {
  Limits limits = test::limits();
  limits.chunk_tokens = std::max(std::min(limits.chunk_tokens, 64), chunk_min);
  limits.logit_rows = limits.chunk_tokens;
  return limits;
}

class Recorder : public ForwardObserver {
 public:
  explicit Recorder(const ModelConfig& config)
      : used_(config.experts_used), hidden(config.layers + 1), chosen(config.layers) {}
  void streams(int32_t layer, const float* h, int64_t stride, int64_t n) override {
    hidden[layer + 1].insert(hidden[layer + 1].end(), h, h + n * stride);
  }
  void picks(int32_t layer, const int32_t* picks, int64_t n) override {
    for (int64_t row = 0; row < n; ++row) {
      const int32_t* at = picks + row * used_;
      chosen[layer].emplace_back(at, at + used_);
    }
  }
  int64_t tokens() const { return std::ssize(chosen.back()); }

 private:
  int32_t used_;

 public:
  std::vector<Floats> hidden;                               // [layers + 1][tokens * streams * dim]
  std::vector<std::vector<std::multiset<int32_t>>> chosen;  // [layers][tokens]
};

inline std::vector<int32_t> all_experts(const ModelConfig& config) {
  return std::vector<int32_t>(config.layers, config.experts);
}

struct Runner {
  Runner(const Model& model, int64_t context, uint64_t seed = 1,
         const Limits& with = small_limits())
      : Runner(model, context, seed, with, all_experts(model.config)) {}
  // With as many experts of each layer on the device; the host computes the others, or sends them
  // by these rates.
  // With a cache these come out of it.
  Runner(const Model& model, int64_t context, uint64_t seed, const Limits& with,
         const std::vector<int32_t>& held, const std::optional<LinkRates>& rates = {},
         std::unique_ptr<ExpertCache> cache = nullptr)
      : config(model.config),
        limits(with),
        device(open_for_tests(seed)),
        weights(upload_weights(*device, config, model.weights)),
        store(layer_experts(model.weights), config.experts, config.experts_used,
              limits.chunk_tokens, std::move(cache)),
        host(config, choose_kernels("avx2"), workers, limits, store),
        tier(*device, layer_experts(model.weights), config.experts, held,
             {.slab_bytes = with.vram_slab_bytes, .cache = store.cache()}),
        forward({*device, config, weights, model.weights.embedding, tier,
                 held == all_experts(config) ? nullptr : &host, sending(model, rates)},
                context, limits) {
    if (store.cache() != nullptr) HEARTH_CHECK(!tier.load(nullptr));
  }

  static std::optional<ExpertSending> sending(const Model& model,
                                              const std::optional<LinkRates>& rates) {
    if (!rates) return std::nullopt;
    return ExpertSending{layer_experts(model.weights), *rates};
  }

  DeviceCache new_cache(KvType type, int64_t context) {
    return DeviceCache(*device, {config, type, context, limits});
  }

  // All logits, the tokens fed in pieces of `chunk`.
  Floats run(DeviceCache& cache, std::span<const int32_t> tokens, int64_t chunk,
             ForwardObserver* observer = nullptr) {
    chunk = std::min<int64_t>(chunk, forward.chunk_tokens());
    Floats logits;
    for (int64_t at = 0; at < std::ssize(tokens); at += chunk) {
      const auto part = tokens.subspan(at, std::min(chunk, std::ssize(tokens) - at));
      const DeviceSegment segment{&cache, part};
      const auto some = forward.run({&segment, 1}, LogitRows::kAll, observer);
      logits.insert(logits.end(), some.begin(), some.end());
    }
    return logits;
  }

  const ModelConfig config;
  const Limits limits;
  std::unique_ptr<Device> device;
  DeviceWeights weights;
  const Workers workers{1};
  ExpertStore store;
  HostExperts host;
  VramTier tier;
  DeviceForward forward;
};

inline Floats run_on_cpu(const Model& model, KvType type, std::span<const int32_t> tokens) {
  Limits limits;
  limits.chunk_tokens = limits.logit_rows = static_cast<int32_t>(tokens.size());
  const Workers workers(1);
  KvCache cache(model.config, type, std::ssize(tokens), limits);
  Forward forward(model.config, model.weights, choose_kernels("avx2"), workers, std::ssize(tokens),
                  limits);
  const Segment segment{&cache, tokens};
  const auto logits = forward.run({&segment, 1}, LogitRows::kAll);
  return {logits.begin(), logits.end()};
}

}  // namespace hearth::test
