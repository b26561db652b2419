// The real forward pass: goldens on every instruction set, any cut of the prompt, several sequences
// at once.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <vector>

#include "cpu_kernels/registry.h"
#include "cpu_kernels/tile_tables.h"
#include "loaded_model.h"
#include "model/forward.h"
#include "model/reference.h"
#include "offload/store/open_cache.h"
#include "support.h"

using namespace hearth;
using test::demo;
using test::Loaded;
using test::nano;
using Floats = std::vector<float>;

namespace {

class Recorder : public ForwardObserver {
 public:
  Recorder(const ModelConfig& config)
      : config_(config), hidden(config.layers + 1), chosen(config.layers) {}
  void streams(int32_t layer, const float* h, int64_t stride, int64_t n) override {
    for (int64_t row = 0; row < n; ++row) {
      const float* at = h + row * stride;
      hidden[layer + 1].insert(hidden[layer + 1].end(), at, at + config_.streams * config_.dim);
    }
  }
  void picks(int32_t layer, const int32_t* picks, int64_t n) override {
    chosen[layer].insert(chosen[layer].end(), picks, picks + n * config_.experts_used);
  }

 private:
  const ModelConfig& config_;

 public:
  std::vector<Floats> hidden;                // [layers + 1][tokens * streams * dim]
  std::vector<std::vector<int32_t>> chosen;  // [layers][tokens * used]
};

Limits all_logits() {
  Limits limits = test::limits();
  limits.logit_rows = limits.chunk_tokens;
  return limits;
}

struct Runner {
  Runner(const Loaded& loaded, const Kernels& kernels, KvType kv, int64_t context, int threads = 2)
      : workers(threads),
        cache(loaded.config, kv, context, all_logits()),
        forward(loaded.config, loaded.weights, kernels, workers, context, all_logits()) {}

  // All logits, the prompt fed in pieces of `chunk` tokens.
  Floats run(const std::vector<int32_t>& tokens, int64_t chunk,
             ForwardObserver* observer = nullptr) {
    chunk = std::min<int64_t>(chunk, forward.chunk_tokens());
    cache.position = 0;
    Floats logits;
    const std::span<const int32_t> all = tokens;
    for (int64_t at = 0; at < std::ssize(tokens); at += chunk) {
      const Segment segment{&cache, all.subspan(at, std::min(chunk, std::ssize(tokens) - at))};
      const auto part = forward.run({&segment, 1}, LogitRows::kAll, observer);
      logits.insert(logits.end(), part.begin(), part.end());
    }
    return logits;
  }

  Workers workers;
  KvCache cache;
  Forward forward;
};

// Share of right guesses where the experts that were picked most are guessed for every token.
double listed_precision(const ModelConfig& config, const std::vector<int32_t>& chosen) {
  std::vector<int64_t> counts(config.experts);
  for (const int32_t expert : chosen) ++counts[expert];
  std::ranges::sort(counts, std::greater());
  const int64_t right =
      std::accumulate(counts.begin(), counts.begin() + config.experts_used, int64_t{0});
  return static_cast<double>(right) / static_cast<double>(chosen.size());
}

}  // namespace

TEST_CASE(
    "experts through a cache: the same logits, and the next layer's are guessed better than by a "
    "list") {
  const Loaded& model = demo();
  const Kernels& kernels = choose_kernels("");
  OpenCache open = open_expert_cache(
      model.dir, layer_experts(model.weights),
      {.experts = model.config.experts, .slots = 30, .read_ahead = 4}, Topology::of_this_machine());
  const Workers workers(2);
  KvCache cache(model.config, KvType::kBF16, 200, all_logits());
  Forward forward(model.config, model.weights, kernels, workers, 200, all_logits(),
                  std::move(open.cache));
  Runner whole(model, kernels, KvType::kBF16, 200);
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const std::vector<int32_t> tokens(ids.begin(), ids.begin() + 150);
  Recorder recorder(model.config);
  const Floats expected = whole.run(tokens, 1, &recorder);
  Floats logits;
  for (const int32_t& token : tokens) {
    const Segment segment{&cache, {&token, 1}};
    const auto part = forward.run({&segment, 1}, LogitRows::kAll);
    logits.insert(logits.end(), part.begin(), part.end());
  }
  CHECK(logits == expected);
  // How often guesses are looked at follows from how fast reads are, so single layers vary.
  double guessed = 0, listed = 0;
  for (int32_t layer = model.config.hash_layers; layer < model.config.layers; ++layer) {
    CHECK(forward.guess_precision(layer) <= 1);
    guessed += forward.guess_precision(layer);
    listed += listed_precision(model.config, recorder.chosen[layer]);
  }
  CHECK(guessed > 1.4 * listed);
  for (int32_t layer = 0; layer < model.config.hash_layers; ++layer) {
    CHECK(forward.guess_precision(layer) == 0);
  }
}

TEST_CASE(
    "nano: logits within 2e-4 of the golden ones on every instruction set, however the prompt is "
    "cut") {
  const std::vector<int32_t> tokens = test::read_ids(test::data("nano/nano.tokens.txt"));
  const Floats golden = test::read_array<float>(test::data("nano/nano.logits.f32"));
  for (const Kernels* kernels : usable_kernels()) {
    Runner runner(nano(), *kernels, KvType::kF32, std::ssize(tokens));
    for (const int64_t chunk : {420, 128, 7, 1}) {
      CAPTURE(kernels->name);
      CAPTURE(chunk);
      CHECK(test::max_difference(runner.run(tokens, chunk), golden) < 2e-4);
    }
  }
}

TEST_CASE(
    "nano: rounding the cache to BF16 costs at most 3e-2, and the cut changes nothing then "
    "either") {
  const std::vector<int32_t> tokens = test::read_ids(test::data("nano/nano.tokens.txt"));
  const Floats golden = test::read_array<float>(test::data("nano/nano.logits.f32"));
  Runner runner(nano(), choose_kernels(""), KvType::kBF16, std::ssize(tokens));
  const Floats whole = runner.run(tokens, 420);
  CHECK(test::max_difference(whole, golden) < 3e-2);
  CHECK(test::max_difference(runner.run(tokens, 1), whole) < 2e-4);
}

TEST_CASE("nano: hidden states and picks of every block equal the reference's") {
  std::vector<int32_t> tokens = test::read_ids(test::data("nano/nano.tokens.txt"));
  tokens.resize(150);  // past the window, past top_k entries, one HCA entry
  const ReferenceOutput reference = run_reference(nano().config, nano().weights, tokens);
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    Recorder recorder(nano().config);
    Runner runner(nano(), *kernels, KvType::kF32, 150);
    runner.run(tokens, 64, &recorder);
    for (int32_t layer = -1; layer < nano().config.layers; ++layer) {
      CAPTURE(layer);
      CHECK(test::max_difference(recorder.hidden[layer + 1], reference.hidden[layer + 1]) < 5e-5);
    }
    CHECK(recorder.chosen == reference.picks);
  }
}

TEST_CASE(
    "demo: rounded activations stay close to the golden distribution, and the cut changes no bit "
    "of it") {
  const std::vector<int32_t> tokens = test::read_ids(test::data("demo/demo.tokens.txt"));
  const Floats golden = test::read_array<float>(test::data("demo/demo.logits.f32"));
  const int64_t vocab = demo().config.vocab;
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    Runner runner(demo(), *kernels, KvType::kBF16, std::ssize(tokens));
    const Floats logits = runner.run(tokens, 300);
    double divergence = 0;
    int64_t same = 0;
    for (int64_t t = 0; t < std::ssize(tokens); ++t) {
      const float* p = golden.data() + t * vocab;
      const float* q = logits.data() + t * vocab;
      double p_total = 0, q_total = 0;
      for (int64_t i = 0; i < vocab; ++i) p_total += std::exp(p[i]), q_total += std::exp(q[i]);
      for (int64_t i = 0; i < vocab; ++i) {
        divergence += std::exp(p[i]) / p_total * (p[i] - q[i] - std::log(p_total / q_total));
      }
      same += std::max_element(p, p + vocab) - p == std::max_element(q, q + vocab) - q;
    }
    CHECK(divergence / static_cast<double>(tokens.size()) < 0.01);
    CHECK(static_cast<double>(same) >= 0.97 * static_cast<double>(tokens.size()));
    // In tiles, tokens are multiplied by other arithmetic than when they come one by one.
    if (!kernels->reads_bfloat16) CHECK(runner.run(tokens, 11) == logits);
  }
}

TEST_CASE("demo: tiles leave perplexity where it is, and decode to the bit") {
  const std::vector<int32_t> tokens = test::read_ids(test::data("demo/demo.tokens.txt"));
  const int64_t vocab = demo().config.vocab;
  const auto perplexity = [&](const Floats& logits) {
    double sum = 0;
    for (size_t t = 0; t + 1 < tokens.size(); ++t) {
      const float* at = logits.data() + t * vocab;
      double total = 0;
      for (int64_t i = 0; i < vocab; ++i) total += std::exp(at[i] - at[tokens[t + 1]]);
      sum += std::log(total);
    }
    return std::exp(sum / static_cast<double>(tokens.size() - 1));
  };
  for (const Kernels* kernels : test::tile_tables()) {
    CAPTURE(kernels->name);
    Runner tiles(demo(), *kernels, KvType::kBF16, std::ssize(tokens));
    Runner plain(demo(), choose_kernels("avx512"), KvType::kBF16, std::ssize(tokens));
    const Floats expected = plain.run(tokens, 300), logits = tiles.run(tokens, 300);
    CHECK(perplexity(logits) == doctest::Approx(perplexity(expected)).epsilon(0.005));
    if (tiles.forward.chunk_tokens() >= 300) CHECK(logits != expected);
    CHECK(tiles.run(tokens, 1) == expected);
  }
}

TEST_CASE(
    "a sequence's logits do not depend on its neighbours in the batch, nor on the number of "
    "threads") {
  const std::vector<int32_t> tokens = test::read_ids(test::data("demo/demo.tokens.txt"));
  const Kernels& kernels = choose_kernels("");
  const int64_t n = 40;
  Runner alone(demo(), kernels, KvType::kBF16, n, 1);
  const int64_t chunk = kernels.reads_bfloat16 ? 1 : n;  // tiles make a prefill differ from decode
  const Floats expected = alone.run({tokens.begin(), tokens.begin() + n}, chunk);
  const int64_t vocab = demo().config.vocab;

  Limits limits = test::limits();
  limits.chunk_tokens = std::max(limits.chunk_tokens, 3);
  limits.logit_rows = std::max(limits.logit_rows, 2);
  const Workers workers(3);
  Forward forward(demo().config, demo().weights, kernels, workers, n, limits);
  KvCache first(demo().config, KvType::kBF16, n, limits),
      second(demo().config, KvType::kBF16, n, limits);
  for (int64_t at = 0; at < n; ++at) {
    // The second sequence lags behind and reads other tokens.
    std::vector<Segment> segments;
    if (at >= 5) segments.push_back({&second, {tokens.data() + 100 + at, 1}});
    segments.push_back({&first, {tokens.data() + at, 1}});
    const auto logits = forward.run(segments, LogitRows::kLast);
    const auto last = logits.last(vocab);
    CHECK(std::equal(last.begin(), last.end(), expected.begin() + at * vocab));
  }
}

TEST_CASE("a cache set back to the start forgets") {
  const std::vector<int32_t> tokens = test::read_ids(test::data("nano/nano.tokens.txt"));
  Runner runner(nano(), choose_kernels(""), KvType::kBF16, std::ssize(tokens));
  const std::vector<int32_t> head(tokens.begin(), tokens.begin() + 50);
  const Floats expected = runner.run(head, 50);
  runner.run(tokens, 420);
  CHECK(runner.run(head, 50) == expected);
}
