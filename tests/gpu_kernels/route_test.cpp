// The router's picks and weights, against plain loops.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gpu_kernels/gpu.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;
using Floats = std::vector<float>;
using Rows = std::vector<int32_t>;

namespace {

double score(double x) { return std::sqrt(std::log1p(std::exp(x))); }

struct Routed {
  Rows picks;
  Floats weights;
};

struct Router {
  Floats logits, bias;
  Rows hash_table, tokens;
  int64_t n = 0;
  int32_t experts = 0, used = 0;
  bool norm = true;
  float scale = 2.5f;

  Rows picks(int64_t row) const {
    if (!hash_table.empty()) {
      const auto begin = hash_table.begin() + tokens[row] * used;
      return {begin, begin + used};
    }
    Rows order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater(),
                             [&](int32_t e) { return score(logits[row * experts + e]) + bias[e]; });
    order.resize(used);
    return order;
  }
  Routed expected() const {
    Routed routed;
    for (int64_t row = 0; row < n; ++row) {
      const Rows own = picks(row);
      double sum = 0;
      for (const int32_t e : own) sum += score(logits[row * experts + e]);
      for (const int32_t e : own) {
        const double value = score(logits[row * experts + e]) * scale;
        routed.picks.push_back(e);
        routed.weights.push_back(static_cast<float>(norm ? value / sum : value));
      }
      routed.weights.push_back(1);
    }
    return routed;
  }
  Routed run(uint64_t seed) const {
    Gpu gpu(seed);
    GpuRouteParams p = {};
    p.logits = gpu.upload(logits);
    if (hash_table.empty()) {
      p.bias = gpu.upload(bias);
    } else {
      p.hash_table = gpu.upload(hash_table);
      p.tokens = gpu.upload(tokens);
    }
    p.n = n;
    p.experts = experts;
    p.used = used;
    p.norm = norm;
    p.scale = scale;
    p.picks = gpu.allocate<int32_t>(n * used);
    p.weights = gpu.allocate<float>(n * (used + 1));
    gpu.kernels().route(p, gpu.stream());
    return {gpu.download(p.picks, n * used), gpu.download(p.weights, n * (used + 1))};
  }
};

Router random_router(int64_t n, int32_t experts, int32_t used) {
  std::mt19937 random(static_cast<uint32_t>(experts));
  std::normal_distribution<float> normal;
  Router router;
  router.n = n;
  router.experts = experts;
  router.used = used;
  for (int64_t i = 0; i < n * experts; ++i) router.logits.push_back(9 * normal(random));
  for (int32_t e = 0; e < experts; ++e) router.bias.push_back(normal(random));
  return router;
}

void check(const Router& router) {
  CAPTURE(router.experts);
  const Routed expected = router.expected();
  for (const uint64_t seed : {0, 1, 2}) {
    const Routed routed = router.run(seed);
    CHECK(routed.picks == expected.picks);
    CHECK(max_difference(routed.weights, expected.weights) < 2e-6);
  }
}

}  // namespace

TEST_CASE("route: the best by score and bias, weighed without bias") {
  check(random_router(1, 1, 1));
  check(random_router(3, 5, 5));
  check(random_router(9, 256, 6));
  Router plain = random_router(2, 384, 8);
  plain.norm = false;
  check(plain);
}

TEST_CASE("route: the lower index wins a tie") {
  Router router = random_router(2, 70, 6);
  std::ranges::fill(router.logits, 0.5f);
  std::ranges::fill(router.bias, 0.25f);
  router.bias[40] = router.bias[69] = 1;
  check(router);
  CHECK(router.run(3).picks == Rows{40, 69, 0, 1, 2, 3, 40, 69, 0, 1, 2, 3});
}

TEST_CASE("route: tables of tokens pick, scores weigh") {
  Router router = random_router(4, 40, 3);
  for (int32_t i = 0; i < 5 * 3; ++i) router.hash_table.push_back(i * 7 % 40);
  router.tokens = {4, 0, 2, 2};
  check(router);
}

TEST_CASE("route: huge logits and tiny ones are as good as others") {
  Router router = random_router(1, 33, 4);
  router.logits[32] = 1e30f;
  router.logits[7] = 1e4f;
  std::ranges::fill(router.bias, 0.0f);
  const Routed routed = router.run(0);
  CHECK(routed.picks[0] == 32);
  CHECK(routed.picks[1] == 7);
  for (const float weight : routed.weights) CHECK(std::isfinite(weight));
  std::ranges::fill(router.logits, -1e4f);
  CHECK(router.run(0).picks == Rows{0, 1, 2, 3});
}

TEST_CASE("route: whatever the logits, picks are experts and differ") {
  Router router = random_router(1, 33, 4);
  std::ranges::fill(router.logits, std::numeric_limits<float>::quiet_NaN());
  router.logits[20] = 1;
  CHECK(router.run(0).picks == Rows{20, 0, 1, 2});
  router.logits[21] = std::numeric_limits<float>::infinity();
  CHECK(router.run(0).picks == Rows{21, 20, 0, 1});
}

TEST_CASE("route without rows does nothing") { Gpu().kernels().route({}, nullptr); }
