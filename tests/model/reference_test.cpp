#include "model/reference.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "format/gguf.h"
#include "support.h"

using namespace hearth;

namespace {

struct Model {
  explicit Model(const std::filesystem::path& path)
      : dir(open_gguf(path)),
        config(read_config(dir, path.string())),
        weights(bind_weights(dir, config, path.string())) {}

  TensorDir dir;
  ModelConfig config;
  ModelWeights weights;
};

std::vector<float> first(const std::vector<float>& values, size_t count) {
  return {values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count)};
}

// Rows of `used` picks [layers, tokens, used] with each row sorted: sets.
std::vector<int32_t> as_sets(std::vector<int32_t> picks, int32_t used) {
  for (auto row = picks.begin(); row != picks.end(); row += used) std::sort(row, row + used);
  return picks;
}

// Layer `layer`'s first `tokens` rows out of goldens for `golden_tokens`.
std::vector<int32_t> golden_picks(const std::vector<int32_t>& all, int32_t layer, size_t tokens,
                                  size_t golden_tokens, int32_t used) {
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(layer * golden_tokens * used);
  return as_sets({begin, begin + static_cast<std::ptrdiff_t>(tokens * used)}, used);
}

// Mean over rows of KL(softmax(golden) || softmax(logits)).
double mean_divergence(const std::vector<float>& golden, const std::vector<float>& logits,
                       size_t vocab) {
  const auto log_sum = [&](const float* row) {
    double sum = 0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]));
    return std::log(sum);
  };
  double total = 0;
  for (size_t at = 0; at < golden.size(); at += vocab) {
    const double p = log_sum(&golden[at]), q = log_sum(&logits[at]);
    for (size_t i = at; i < at + vocab; ++i) {
      total += std::exp(golden[i] - p) * ((golden[i] - p) - (logits[i] - q));
    }
  }
  return total / static_cast<double>(golden.size() / vocab);
}

const Model& nano() {
  static const Model model(test::data("nano/nano.gguf"));
  return model;
}
std::vector<int32_t> nano_tokens() { return test::read_ids(test::data("nano/nano.tokens.txt")); }

}  // namespace

TEST_CASE("nano: logits, streams after every block and picks are the goldens'") {
  const ModelConfig& config = nano().config;
  const std::vector<int32_t> tokens = nano_tokens();
  REQUIRE(tokens.size() == 420);
  const ReferenceOutput out = run_reference(config, nano().weights, tokens);

  const auto logits = test::read_array<float>(test::data("nano/nano.logits.f32"));
  CHECK(test::max_difference(out.logits, logits) < 2e-5);

  const auto hidden = test::read_array<float>(test::data("nano/nano.hidden.f32"));
  const size_t width = size_t(config.streams) * config.dim;
  std::vector<float> every_tenth;
  for (const std::vector<float>& streams : out.hidden) {
    for (size_t t = 0; t < tokens.size(); t += 10) {
      const float* row = &streams[t * width];
      every_tenth.insert(every_tenth.end(), row, row + width);
    }
  }
  CHECK(test::max_difference(every_tenth, hidden) < 2e-5);

  const auto picks = test::read_array<int32_t>(test::data("nano/nano.picks.i32"));
  const int32_t used = config.experts_used;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    CHECK(as_sets(out.picks[layer], used) == golden_picks(picks, layer, 420, 420, used));
  }
}

TEST_CASE("nano: a token's row does not depend on later tokens") {
  // From token 35 on the indexer leaves entries out, and ties there depend on the length of the text.
  const ModelConfig& config = nano().config;
  const std::vector<int32_t> tokens = nano_tokens();
  const ReferenceOutput whole = run_reference(config, nano().weights, tokens);
  for (const size_t count : {1, 4, 33}) {
    const ReferenceOutput part =
        run_reference(config, nano().weights, std::span(tokens).first(count));
    CHECK(part.logits == first(whole.logits, count * config.vocab));
  }
}

TEST_CASE("the lower index wins a tie in the router, before the weights are normed or after") {
  ModelConfig config = nano().config;
  config.layers = 2;
  ModelWeights weights = nano().weights;
  const std::vector<float> zeros(size_t(config.experts) * config.dim);
  const auto* zero_bytes = reinterpret_cast<const unsigned char*>(zeros.data());
  weights.layers[0].moe.router.data = zero_bytes;
  weights.layers[1].moe.router.data = zero_bytes;
  weights.layers[1].moe.bias.assign(config.experts, 0.0f);

  std::vector<int32_t> tokens = nano_tokens();
  tokens.resize(20);
  const ReferenceOutput normed = run_reference(config, weights, tokens);
  CHECK(std::equal(normed.picks[1].end() - 3, normed.picks[1].end(), std::vector{0, 1, 2}.begin()));

  // Equal scores without their division by the sum are all sqrt(ln 2).
  ModelConfig undivided = config;
  undivided.expert_norm = false;
  undivided.expert_scale = config.expert_scale / (3 * std::sqrt(std::log(2.0f)));
  const ReferenceOutput plain = run_reference(undivided, weights, tokens);
  CHECK(test::max_difference(plain.logits, normed.logits) < 1e-5);
}

TEST_CASE("demo: quantized weights, logits and picks are the goldens'") {
  const Model demo(test::models("demo.gguf"));
  const std::vector<int32_t> all = test::read_ids(test::data("demo/demo.tokens.txt"));
  constexpr size_t kTokens = 300;
  const ReferenceOutput out =
      run_reference(demo.config, demo.weights, std::span(all).first(kTokens));

  const auto golden = test::read_array<float>(test::data("demo/demo.logits.f32"));
  const std::vector<float> logits = first(golden, kTokens * demo.config.vocab);
  CHECK(test::max_difference(out.logits, logits) < 2e-4);
  CHECK(mean_divergence(logits, out.logits, demo.config.vocab) < 1e-8);

  const auto picks = test::read_array<int32_t>(test::data("demo/demo.picks.i32"));
  const int32_t used = demo.config.experts_used;
  for (int32_t layer = 0; layer < demo.config.layers; ++layer) {
    CHECK(as_sets(out.picks[layer], used) == golden_picks(picks, layer, kTokens, all.size(), used));
  }
}
