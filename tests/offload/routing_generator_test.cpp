// Drawn routing against the figures of real models that it is fitted to.
#include "offload/sim/routing_generator.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/hash.h"
#include "offload/sim/cache_curves.h"
#include "offload/sim/routing_stats.h"
#include "support.h"

using namespace hearth;

namespace {

constexpr double kPoints = 0.03;  // how far a figure may be off

RoutingTrace draw(const RoutingModel& model, uint64_t seed, const std::vector<int64_t>& sequences) {
  return RoutingGenerator(model, seed).generate(sequences);
}

// Text of all subjects, long enough that counts are popularity.
RoutingTrace mixed_text(uint64_t seed) {
  return draw(flash_routing(), seed, std::vector<int64_t>(200, 100));
}

double share_of(const Accesses& accesses, const HitCounts& curve, double held) {
  return hit_rate(accesses, curve[slots_of_share(accesses, held)]);
}

uint64_t hash_of(const RoutingTrace& trace) {
  ResultHash hash;
  hash.add(std::span<const uint16_t>(trace.picks));
  return hash.value();
}

bool near(double value, double wanted) { return std::abs(value - wanted) < kPoints; }

}  // namespace

TEST_CASE("V4-Flash: popularity over text of all subjects") {
  constexpr double kHeld[] = {0.046, 0.10, 0.13, 0.25, 0.50};
  constexpr double kServed[] = {0.147, 0.250, 0.299, 0.463, 0.718};
  for (const uint64_t seed : {1, 2}) {
    const Accesses accesses = accesses_of(mixed_text(seed));
    const HitCounts curve = static_curve(accesses, count_uses(accesses));
    for (int i = 0; i < 5; ++i) {
      const double served = share_of(accesses, curve, kHeld[i]);
      CAPTURE(kHeld[i]);
      CAPTURE(served);
      CHECK(near(served, kServed[i]));
    }
  }
}

TEST_CASE("V4-Flash: the popularity of each layer is as uneven as counted") {
  if (!test::has_shared()) return test::skip("expert counts of V4-Flash");
  const nlohmann::json json = nlohmann::json::parse(
      test::read_text(test::shared("data/routing/v4-flash-expert-counts.json")));
  const auto counts = json["counts"].get<std::vector<std::vector<int64_t>>>();
  const RoutingModel model = flash_routing();
  REQUIRE(std::ssize(counts) == model.layers);
  const Accesses accesses = accesses_of(mixed_text(3));
  const std::vector<int64_t> uses = count_uses(accesses);
  const auto served = [&](std::vector<int64_t> of, double held) {
    std::ranges::sort(of, std::greater());
    const auto end = of.begin() + std::llround(held * static_cast<double>(of.size()));
    return static_cast<double>(std::accumulate(of.begin(), end, int64_t{0})) /
           static_cast<double>(std::accumulate(of.begin(), of.end(), int64_t{0}));
  };
  std::vector<int64_t> all;
  for (const auto& layer : counts) all.insert(all.end(), layer.begin(), layer.end());
  for (const double held : {0.046, 0.10, 0.13, 0.25, 0.50, 0.75}) {
    CAPTURE(held);
    CHECK(near(served(uses, held), served(all, held)));
    // The model knows two kinds of layers; each by itself may be off, their average may not.
    for (const bool hashed : {true, false}) {
      const int32_t first = hashed ? 0 : model.hash_layers;
      const int32_t last = hashed ? model.hash_layers : model.layers;
      double drawn = 0, counted = 0;
      for (int32_t layer = first; layer < last; ++layer) {
        const auto begin = uses.begin() + layer * model.experts;
        drawn += served({begin, begin + model.experts}, held);
        counted += served(counts[layer], held);
      }
      CHECK(near(drawn / (last - first), counted / (last - first)));
    }
  }
}

TEST_CASE("V4-Flash: what an LRU cache serves while a text stays in its subject") {
  double at_12 = 0, at_25 = 0;
  for (const uint64_t seed : {1, 2, 3}) {
    const Accesses accesses = accesses_of(draw(flash_routing(), seed, {2000}));
    const HitCounts curve = lru_curve(accesses);
    at_12 += share_of(accesses, curve, 0.12) / 3;
    at_25 += share_of(accesses, curve, 0.25) / 3;
  }
  CAPTURE(at_12);
  CAPTURE(at_25);
  CHECK(near(at_12, 0.65));
  CHECK(near(at_25, 0.81));
}

TEST_CASE("V4.1-Flash: 50 short texts, a fixed list and LRU at five sizes") {
  constexpr double kHeld[] = {0.13, 0.26, 0.39, 0.52, 0.65};
  constexpr double kStatic[] = {0.494, 0.680, 0.809, 0.896, 0.952};
  constexpr double kLru[] = {0.606, 0.778, 0.869, 0.923, 0.960};
  std::vector<int64_t> texts(50, 215);
  texts.back() += 10;
  double fixed[5] = {}, lru[5] = {};
  for (const uint64_t seed : {1, 2, 3}) {
    const Accesses accesses = accesses_of(draw(flash41_routing(), seed, texts));
    for (int i = 0; i < 5; ++i) {
      fixed[i] += share_of(accesses, static_curve(accesses, count_uses(accesses)), kHeld[i]) / 3;
      lru[i] += share_of(accesses, lru_curve(accesses), kHeld[i]) / 3;
    }
  }
  for (int i = 0; i < 5; ++i) {
    CAPTURE(kHeld[i]);
    CAPTURE(fixed[i]);
    CAPTURE(lru[i]);
    CHECK(near(fixed[i], kStatic[i]));
    CHECK(near(lru[i], kLru[i]));
  }
}

TEST_CASE("neighbouring tokens share experts and subjects have their own, as reported") {
  const RoutingModel model = flash_routing();
  const Accesses accesses = accesses_of(draw(model, 4, {1200}));
  // Six tokens in a row touch 22 to 28 distinct experts of a layer.
  const double distinct = mean_working_set(accesses, 6) / model.layers;
  CHECK(distinct > 22);
  CHECK(distinct < 28);
  // The 500 most used pairs of two subjects: Jaccard 0.01 to 0.13.
  RoutingModel steady = model;
  steady.stay_tokens = 0;
  const RoutingTrace texts = draw(steady, 2, {800, 800});
  std::vector<std::vector<int32_t>> tops;
  for (int text = 0; text < 2; ++text) {
    RoutingTrace one = texts;
    one.sequences = {800};
    one.picks.assign(texts.picks.begin() + text * std::ssize(texts.picks) / 2,
                     texts.picks.begin() + (text + 1) * std::ssize(texts.picks) / 2);
    const std::vector<int64_t> uses = count_uses(accesses_of(one));
    std::vector<int32_t> order(uses.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater(), [&](int32_t key) { return uses[key]; });
    order.resize(500);
    std::ranges::sort(order);
    tops.push_back(order);
  }
  std::vector<int32_t> both;
  std::ranges::set_intersection(tops[0], tops[1], std::back_inserter(both));
  const double jaccard = static_cast<double>(both.size()) / static_cast<double>(1000 - both.size());
  CHECK(jaccard > 0.01);
  CHECK(jaccard < 0.13);
}

TEST_CASE("the program's own policy: never below LRU, and clearly above where slots are few") {
  constexpr double kHeld[] = {0.046, 0.12, 0.25, 0.50};
  struct Workload {
    RoutingModel model;
    uint64_t seed;
    std::vector<int64_t> texts;
  };
  // The texts of the first two change their subject.
  for (const Workload& work :
       {Workload{flash_routing(), 1, {1000}}, Workload{flash_routing(), 6, {1500}},
        Workload{flash41_routing(), 6, std::vector<int64_t>(20, 215)}}) {
    const Accesses accesses = accesses_of(draw(work.model, work.seed, work.texts));
    const HitCounts lru = lru_curve(accesses);
    double gain[4];
    for (int i = 0; i < 4; ++i) {
      CAPTURE(kHeld[i]);
      const auto policy = make_reuse_policy({accesses.layers, accesses.experts});
      const int64_t hits = count_hits(accesses, *policy, slots_of_share(accesses, kHeld[i]));
      gain[i] = hit_rate(accesses, hits) - share_of(accesses, lru, kHeld[i]);
      CHECK(gain[i] >= 0);
    }
    CHECK(gain[0] > 0.05);
    CHECK(gain[1] > 0.015);
    CHECK(gain[2] > 0.005);
  }
}

TEST_CASE("the same seed draws the same picks on every machine, another seed others") {
  const RoutingModel model = routing_like_flash(5, 33, 4);
  const RoutingTrace trace = draw(model, 7, {40, 3});
  CHECK(hash_of(trace) == 10831897308779682374u);
  CHECK(hash_of(draw(model, 7, {40, 3})) == hash_of(trace));
  CHECK(hash_of(draw(model, 8, {40, 3})) != hash_of(trace));
  CHECK(trace.sequences == std::vector<int64_t>{40, 3});
}

TEST_CASE("a token's experts in a layer are distinct and known, in any shape") {
  for (const auto& [experts, used] : {std::pair{1, 1}, {6, 6}, {16, 2}, {384, 6}}) {
    RoutingModel model = routing_like_flash(3, experts, used);
    model.spread = 3;
    const RoutingTrace trace = draw(model, 1, {50});
    for (int64_t token = 0; token < 50; ++token) {
      for (int32_t layer = 0; layer < 3; ++layer) {
        std::vector<uint16_t> picks(trace.at(token, layer).begin(), trace.at(token, layer).end());
        std::ranges::sort(picks);
        CHECK(picks.back() < experts);
        CHECK(std::ranges::adjacent_find(picks) == picks.end());
      }
    }
  }
}

TEST_CASE("a model that makes no sense is refused") {
  const auto refuses = [](auto change) {
    RoutingModel model = flash_routing();
    change(model);
    CHECK_THROWS_AS(RoutingGenerator(model, 1), Error);
  };
  refuses([](RoutingModel& m) { m.layers = 0; });
  refuses([](RoutingModel& m) { m.experts = 70000; });
  refuses([](RoutingModel& m) { m.used = 257; });
  refuses([](RoutingModel& m) { m.spread = NAN; });
  refuses([](RoutingModel& m) { m.recency = 1; });
  refuses([](RoutingModel& m) { m.reach_tokens = 0; });
  refuses([](RoutingModel& m) { m.subjects = 0; });
}

TEST_CASE("statistics of a trace: each layer by itself, and all of them") {
  // Layer 0 takes turns between two experts, layer 1 always asks for the same.
  RoutingTrace trace = {2, 4, 1, {6}, {0, 3, 1, 3, 0, 3, 1, 3, 0, 3, 1, 3}};
  const RoutingStats stats = routing_stats(accesses_of(trace), {0.25, 0.5}, {1, 2, 4, 7});
  CHECK(stats.windows == std::vector<int64_t>{1, 2, 4});
  REQUIRE(stats.layers.size() == 2);
  CHECK(stats.layers[0].fixed[0] == doctest::Approx(0.5));
  CHECK(stats.layers[0].lru[0] == 0);
  CHECK(stats.layers[0].lru[1] == doctest::Approx(4 / 6.0));
  CHECK(stats.layers[1].lru[0] == doctest::Approx(5 / 6.0));
  CHECK(stats.layers[0].working_set == std::vector<double>{1, 2, 2});
  CHECK(stats.layers[1].working_set == std::vector<double>{1, 1, 1});
  CHECK(stats.all.fixed[0] == doctest::Approx(9 / 12.0));
  CHECK(stats.all.working_set == std::vector<double>{2, 3, 3});
}
