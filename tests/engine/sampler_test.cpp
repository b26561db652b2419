#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"

using namespace hearth;

namespace {

// How often each token comes in many draws.
std::map<int32_t, double> shares(const SamplingOptions& options, const std::vector<float>& logits,
                                 const std::vector<int32_t>& answer = {}) {
  constexpr int kDraws = 20000;
  Sampler sampler(options);
  std::map<int32_t, double> result;
  for (int i = 0; i < kDraws; ++i) result[sampler.sample(logits, answer)] += 1.0 / kDraws;
  return result;
}

}  // namespace

TEST_CASE("temperature 0 takes the largest logit, the lower id in a tie, never NaN") {
  Sampler greedy({.temperature = 0});
  CHECK(greedy.sample(std::vector<float>{1, 3, 3, 2}, {}) == 1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(greedy.sample(std::vector<float>{nan, -5, nan}, {}) == 1);
  CHECK(greedy.sample(std::vector<float>{1, infinity, 2}, {}) == 1);
  CHECK(greedy.sample(std::vector<float>{nan, nan}, {}) == 0);
}

TEST_CASE("draws follow the softmax at the temperature") {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  const auto plain = shares({}, logits);
  CHECK(plain.at(0) == doctest::Approx(0.125).epsilon(0.08));
  CHECK(plain.at(1) == doctest::Approx(0.25).epsilon(0.08));
  CHECK(plain.at(2) == doctest::Approx(0.625).epsilon(0.08));
  const auto cold = shares({.temperature = 0.5f}, logits);  // squares the odds: 1, 4, 25
  CHECK(cold.at(1) == doctest::Approx(4.0 / 30).epsilon(0.08));
}

TEST_CASE("top-k, top-p and min-p cut the tail") {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  CHECK(shares({.top_k = 1}, logits).size() == 1);
  CHECK(shares({.top_k = 2}, logits).count(0) == 0);
  CHECK(shares({.top_p = 0.6f}, logits).size() == 1);  // 5/8 alone reaches it
  CHECK(shares({.top_p = 0.7f}, logits).size() == 2);
  CHECK(shares({.top_p = 0.0f}, logits).size() == 1);  // the likeliest always stays
  CHECK(shares({.min_p = 0.3f}, logits).size() == 2);  // 1/5 is less, 2/5 is not
}

TEST_CASE("top-p looks as far as it has to, among many alike too") {
  const std::vector<float> alike(1000, 0.5f);  // lower ids come first
  Sampler sampler({.top_p = 0.3f});
  int32_t largest = 0;
  for (int i = 0; i < 20000; ++i) largest = std::max(largest, sampler.sample(alike, {}));
  CHECK(largest < 301);  // 300 reach it, give or take a rounding
  CHECK(largest > 295);
  std::vector<float> falling(1000);
  for (int i = 0; i < 1000; ++i) falling[i] = 0.01f * static_cast<float>(i);
  CHECK(shares({.top_p = 0.0f}, falling).begin()->first == 999);
  for (const auto& [token, share] : shares({.top_p = 0.9f}, falling)) CHECK(token >= 1000 - 231);
}

TEST_CASE("penalties act on the answer's tokens") {
  const std::vector<float> logits = {2, 1.9f, -1};
  const std::vector<int32_t> answer = {0, 0, 2};
  const auto pick = [&](SamplingOptions options) {
    options.temperature = 0;
    return Sampler(options).sample(logits, answer);
  };
  CHECK(pick({}) == 0);
  CHECK(pick({.repetition_penalty = 1.2f}) == 1);
  CHECK(pick({.presence_penalty = 0.2f}) == 1);
  CHECK(pick({.frequency_penalty = 0.04f}) == 0);  // 0.08 in all is not enough
  CHECK(pick({.frequency_penalty = 0.06f}) == 1);
}

TEST_CASE("the same seed draws the same tokens, another seed others") {
  const std::vector<float> logits(100, 0.0f);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(sampler.sample(logits, {}));
    return tokens;
  };
  CHECK(draw(7) == draw(7));
  CHECK(draw(7) != draw(8));
}

TEST_CASE("values out of range are refused by name, all at once") {
  try {
    SamplingOptions{.temperature = -1, .top_p = 2, .min_p = std::nanf("")}.check();
    FAIL("no error");
  } catch (const Error& error) {
    const std::string message = error.what();
    CHECK(error.kind() == Error::Kind::kUsage);
    CHECK(message.find("temperature") != std::string::npos);
    CHECK(message.find("top_p") != std::string::npos);
    CHECK(message.find("min_p") != std::string::npos);
  }
  CHECK_NOTHROW(SamplingOptions{}.check());
}
