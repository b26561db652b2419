#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "device/fake_device.h"
#include "engine/sampler.h"
#include "model/device/logit_row.h"

using namespace hearth;

namespace {

const Kernels& kernels() { return choose_kernels(""); }

// How often each token comes in many draws.
std::map<int32_t, double> shares(const SamplingOptions& options, const std::vector<float>& logits,
                                 const std::vector<int32_t>& answer = {}) {
  constexpr int kDraws = 20000;
  Sampler sampler(options, kernels());
  std::map<int32_t, double> result;
  for (int i = 0; i < kDraws; ++i) result[sampler.sample(logits, answer)] += 1.0 / kDraws;
  return result;
}

// A row in the memory of the fake device.
struct RowOnGpu {
  explicit RowOnGpu(const std::vector<float>& values)
      : logits(device->allocate(values.size() * sizeof(float))),
        summary(device->allocate(summary_floats(std::ssize(values)) * sizeof(float))),
        pinned(device->allocate_pinned(values.size() * sizeof(float))),
        row(*device, stream, std::ssize(values), logits.as<float>(), summary.as<float>(), host()) {
    device->copy_to_device(logits.data(), values.data(), values.size() * sizeof(float), stream);
    device->synchronize();
  }
  float* host() { return pinned.as<float>(); }

  std::unique_ptr<Device> device = make_fake_device();
  Stream stream = device->create_stream();
  DeviceBuffer logits, summary;
  PinnedBuffer pinned;
  DeviceLogitRow row;
};

}  // namespace

TEST_CASE("temperature 0 takes the largest logit, the lower id in a tie, never NaN") {
  Sampler greedy({.temperature = 0}, kernels());
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
  Sampler sampler({.top_p = 0.3f}, kernels());
  int32_t largest = 0;
  for (int i = 0; i < 20000; ++i) largest = std::max(largest, sampler.sample(alike, {}));
  CHECK(largest < 301);  // 300 reach it, give or take a rounding
  CHECK(largest > 295);
  std::vector<float> falling(1000);
  for (int i = 0; i < 1000; ++i) falling[i] = 0.01f * static_cast<float>(i);
  CHECK(shares({.top_p = 0.0f}, falling).begin()->first == 999);
  for (const auto& [token, share] : shares({.top_p = 0.9f}, falling)) CHECK(token >= 1000 - 231);
}

TEST_CASE("each cut, and all together, leave the tokens that sorting them all would leave") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(3000);
  for (float& logit : logits) logit = normal(random);
  const auto kept = [&](const SamplingOptions& options) {
    std::vector<std::pair<double, int32_t>> sorted;
    for (size_t i = 0; i < logits.size(); ++i) sorted.push_back({-logits[i], i});
    std::ranges::sort(sorted);
    if (options.top_k > 0) sorted.resize(options.top_k);
    const auto weight = [&](size_t i) { return std::exp(sorted[0].first - sorted[i].first); };
    double total = 0, reached = 0;
    for (size_t i = 0; i < sorted.size(); ++i) total += weight(i);
    std::map<int32_t, double> share;
    for (size_t i = 0; i < sorted.size() && weight(i) >= options.min_p; ++i) {
      if (i > 0 && reached >= options.top_p * total) break;
      reached += weight(i);
      share[sorted[i].second] = weight(i);
    }
    for (auto& [token, value] : share) value /= reached;
    return share;
  };
  for (const SamplingOptions& options : {SamplingOptions{.top_k = 3000},
                                         {.top_k = 12},
                                         {.top_p = 0.5f},
                                         {.min_p = 0.05f},
                                         {.min_p = 1e-4f},
                                         {.top_k = 40, .top_p = 0.7f, .min_p = 0.1f},
                                         {.top_p = 0.9f, .min_p = 0.02f}}) {
    CAPTURE(options.top_k);
    CAPTURE(options.top_p);
    CAPTURE(options.min_p);
    const auto expected = kept(options);
    const auto drawn = shares(options, logits);
    for (const auto& [token, share] : drawn) {
      REQUIRE(expected.contains(token));
      CHECK(std::abs(share - expected.at(token)) < 0.02);
    }
    for (const auto& [token, share] : expected) {
      if (share > 0.002) CHECK(drawn.contains(token));  // 40 times and more of all draws
    }
  }
}

TEST_CASE("a draw from all falls into every block by its weight") {
  std::vector<float> logits(515, -std::numeric_limits<float>::infinity());
  logits[7] = logits[256] = logits[514] = 2;
  const auto drawn = shares({}, logits);
  CHECK(drawn.size() == 3);
  for (const auto& [token, share] : drawn) CHECK(share == doctest::Approx(1.0 / 3).epsilon(0.06));
  CHECK(shares({.temperature = 1e-40f}, {1, 3, 2}).at(1) == doctest::Approx(1));
}

TEST_CASE("penalties act on the answer's tokens") {
  const std::vector<float> logits = {2, 1.9f, -1};
  const std::vector<int32_t> answer = {0, 0, 2};
  const auto pick = [&](SamplingOptions options) {
    options.temperature = 0;
    return Sampler(options, kernels()).sample(logits, answer);
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
    Sampler sampler({.seed = seed}, kernels());
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(sampler.sample(logits, {}));
    return tokens;
  };
  CHECK(draw(7) == draw(7));
  CHECK(draw(7) != draw(8));
}

TEST_CASE("a row on a GPU has the tokens of one on the host, of any logits, options and seeds") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr int64_t kVocab = 3001;  // the last block is no whole one
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> wide(kVocab), peaked(kVocab, -4), ties(kVocab, -kInfinity),
      broken(kVocab, 0.5f);
  for (float& logit : wide) logit = normal(random);
  for (const int i : {5, 700, 2999}) peaked[i] = 4.0f + 0.1f * static_cast<float>(i % 7);
  for (const int i : {3000, 256, 255, 1999}) ties[i] = 2;
  for (const int i : {0, 511, 2047}) broken[i] = std::numeric_limits<float>::quiet_NaN();
  broken[1024] = -kInfinity;
  std::vector<float> endless = broken;
  endless[300] = endless[2100] = kInfinity;
  const SamplingOptions all_options[] = {{},
                                         {.temperature = 0},
                                         {.temperature = 0.3f},
                                         {.temperature = 1e-40f},
                                         {.top_k = 40},
                                         {.top_p = 0.5f},
                                         {.min_p = 0.1f},
                                         {.temperature = 1.5f, .top_k = 300, .top_p = 0.9f},
                                         {.top_p = 0.95f, .min_p = 0.02f},
                                         {.repetition_penalty = 1.3f, .frequency_penalty = 0.2f}};
  for (const std::vector<float>& logits :
       {wide, peaked, ties, broken, endless, std::vector<float>(kVocab, 1.0f)}) {
    RowOnGpu gpu(logits);
    for (SamplingOptions options : all_options) {
      CAPTURE(options.temperature);
      CAPTURE(options.top_k);
      CAPTURE(options.top_p);
      for (options.seed = 0; options.seed < 8; ++options.seed) {
        Sampler on_host(options, kernels()), on_gpu(options, kernels());
        std::vector<int32_t> expected, drawn;
        for (int i = 0; i < 6; ++i) {
          expected.push_back(on_host.sample(logits, expected));
          gpu.row.renew();
          drawn.push_back(on_gpu.sample(gpu.row, drawn));
        }
        CHECK(drawn == expected);
      }
    }
  }
}

TEST_CASE("of a row on a GPU comes what the draw needs, and nothing of it for the likeliest") {
  std::vector<float> logits(20 * 256, 1.0f);
  logits[2000] = 20;
  RowOnGpu gpu(logits);
  const auto brought = [&](const SamplingOptions& options) {
    std::fill_n(gpu.host(), logits.size(), -1.0f);
    gpu.row.renew();
    Sampler(options, kernels()).sample(gpu.row, {});
    return logits.size() - std::count(gpu.host(), gpu.host() + logits.size(), -1.0f);
  };
  CHECK(brought({.temperature = 0}) == 0);
  CHECK(brought({}) == 256);
  CHECK(brought({.min_p = 0.5f}) == 256);
  CHECK(brought({.top_k = 30}) == logits.size());
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
