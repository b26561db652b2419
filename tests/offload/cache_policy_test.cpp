// The policies against plain versions of themselves that look at everything at every step.
#include "offload/store/cache_policy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "offload/sim/cache_curves.h"
#include "offload/sim/routing_generator.h"

using namespace hearth;

namespace {

RoutingTrace random_trace(int32_t layers, int32_t experts, int32_t used, int64_t tokens,
                          uint64_t seed) {
  RoutingModel model = routing_like_flash(layers, experts, used);
  model.spread = 1;
  model.recency = 0.3;
  model.reach_tokens = 3;
  return RoutingGenerator(model, seed).generate(std::span(&tokens, 1));
}

using Keys = std::vector<int32_t>;

// Hits of a cache that gives up, when it must, the key that `choose` names among those that may go.
template <typename Choose>
int64_t naive_hits(const Accesses& accesses, int64_t slots, Choose choose) {
  std::set<int32_t> held;
  int64_t hits = 0;
  for (int64_t s = 0; s < accesses.steps(); ++s) {
    const auto step = accesses.step(s);
    const std::set<int32_t> now(step.begin(), step.end());
    for (const int32_t key : step) hits += held.count(key);
    for (const int32_t key : step) {
      if (held.count(key)) continue;
      Keys may_go;
      std::ranges::set_difference(held, now, std::back_inserter(may_go));
      if (std::ssize(held) == slots) held.erase(choose(may_go, s));
      held.insert(key);
    }
  }
  return hits;
}

// The position of the key's last touch in step s or before; -1: none.
int64_t last_touch(const Accesses& accesses, int32_t key, int64_t s) {
  for (int64_t i = accesses.ends[s] - 1; i >= 0; --i) {
    if (accesses.keys[i] == key) return i;
  }
  return -1;
}
int64_t next_touch(const Accesses& accesses, int32_t key, int64_t s) {
  const auto begin = accesses.keys.begin();
  return std::find(begin + accesses.ends[s], accesses.keys.end(), key) - begin;
}

int64_t naive_lru(const Accesses& accesses, int64_t slots) {
  return naive_hits(accesses, slots, [&](const Keys& keys, int64_t s) {
    return *std::ranges::min_element(keys, {},
                                     [&](int32_t key) { return last_touch(accesses, key, s); });
  });
}
int64_t naive_optimal(const Accesses& accesses, int64_t slots) {
  return naive_hits(accesses, slots, [&](const Keys& keys, int64_t s) {
    return *std::ranges::max_element(keys, {},
                                     [&](int32_t key) { return next_touch(accesses, key, s); });
  });
}

// The most hits that any way of giving keys up reaches, by trying them all: the best from step s
// on, by what the cache holds.
class EveryWay {
 public:
  EveryWay(const Accesses& accesses, int64_t slots) : accesses_(accesses), slots_(slots) {}
  int64_t best(uint32_t held = 0, int64_t s = 0) {
    if (s == accesses_.steps()) return 0;
    const auto [known, added] = best_.try_emplace({s, held}, 0);
    if (!added) return known->second;
    uint32_t now = 0;
    for (const int32_t key : accesses_.step(s)) now |= 1u << key;
    int64_t most = 0;
    const uint32_t others = held & ~now;
    for (uint32_t kept = others;; kept = (kept - 1) & others) {
      if (std::popcount(kept | now) <= slots_) most = std::max(most, best(kept | now, s + 1));
      if (kept == 0) break;
    }
    return best_[{s, held}] = most + std::popcount(held & now);
  }

 private:
  const Accesses& accesses_;
  const int64_t slots_;
  std::map<std::pair<int64_t, uint32_t>, int64_t> best_;
};

CacheShape shape_of(const Accesses& accesses) { return {accesses.layers, accesses.experts}; }

}  // namespace

TEST_CASE("a cache may be loaded beforehand; the optimum gives up first what is never used") {
  Accesses accesses;
  accesses.layers = 1;
  accesses.experts = 4;
  accesses.step_keys_max = 1;
  for (const int32_t key : {2, 3, 2, 3, 2, 3}) {
    accesses.keys.push_back(key);
    accesses.ends.push_back(std::ssize(accesses.keys));
    accesses.layer.push_back(0);
  }
  const CacheShape shape{1, 4};
  const auto hits = [&](const std::vector<int32_t>& loaded) {
    return count_hits(accesses, *make_optimal_policy(shape, accesses.keys), 2, loaded);
  };
  CHECK(hits({}) == 4);
  CHECK(hits({0, 1}) == 4);
  CHECK(hits({0, 3}) == 5);
  CHECK(hits({2, 3}) == 6);
  CHECK(count_hits(accesses, *make_lru_policy(shape), 2, std::vector<int32_t>{0, 3}) == 5);
}

TEST_CASE("LRU and the optimum do what their plain versions do, at every size") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const int64_t block = seed == 4 ? 3 : 1;
    const Accesses accesses = accesses_of(random_trace(3, 12, 3, 60, seed), block);
    const HitCounts curve = lru_curve(accesses);
    for (int64_t slots = accesses.step_keys_max; slots <= accesses.pairs(); ++slots) {
      CAPTURE(slots);
      const auto lru = make_lru_policy(shape_of(accesses));
      const auto optimal = make_optimal_policy(shape_of(accesses), accesses.keys);
      CHECK(count_hits(accesses, *lru, slots) == naive_lru(accesses, slots));
      CHECK(count_hits(accesses, *optimal, slots) == naive_optimal(accesses, slots));
      CHECK(curve[slots] == naive_lru(accesses, slots));
    }
  }
}

TEST_CASE("no way to give keys up beats the optimum") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const Accesses accesses = accesses_of(random_trace(2, 5, 2, 14, seed));
    for (const int64_t slots : {2, 3, 4, 6}) {
      const auto optimal = make_optimal_policy(shape_of(accesses), accesses.keys);
      CHECK(count_hits(accesses, *optimal, slots) == EveryWay(accesses, slots).best());
    }
  }
}

TEST_CASE("the optimum is at least as good as every policy; a full cache misses first uses only") {
  const Accesses accesses = accesses_of(random_trace(5, 40, 4, 300, 9));
  const CacheShape shape = shape_of(accesses);
  const std::set<int32_t> distinct(accesses.keys.begin(), accesses.keys.end());
  const int64_t most = std::ssize(accesses.keys) - std::ssize(distinct);
  for (const int64_t slots : {4, 9, 24, 50, 100, 200}) {
    CAPTURE(slots);
    const auto optimal = make_optimal_policy(shape, accesses.keys);
    const int64_t best = count_hits(accesses, *optimal, slots);
    for (const auto& policy : {make_lru_policy(shape), make_lfu_policy(shape),
                               make_lfu_policy(shape, 2), make_reuse_policy(shape)}) {
      const int64_t hits = count_hits(accesses, *policy, slots);
      CHECK(hits <= best);
      if (slots >= 24) CHECK(hits > 0);
      if (slots == 200) CHECK(hits == most);
    }
    if (slots == 200) CHECK(best == most);
  }
}

TEST_CASE("the LRU curve is the LRU cache's at every size, also over many times its own memory") {
  const Accesses accesses = accesses_of(random_trace(4, 16, 3, 2000, 3));
  const HitCounts curve = lru_curve(accesses);
  CHECK(curve[0] == 0);
  for (const int64_t slots : {3, 4, 7, 12, 20, 33, 50, 63, 64}) {
    const auto lru = make_lru_policy(shape_of(accesses));
    CHECK(count_hits(accesses, *lru, slots) == curve[slots]);
  }
}

TEST_CASE("a fixed list serves the uses of what is on it") {
  const Accesses accesses = accesses_of(random_trace(2, 9, 2, 80, 5));
  const HitCounts by_use = static_curve(accesses, count_uses(accesses));
  Keys order(18);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(),
                           [&](int32_t key) { return std::ranges::count(accesses.keys, key); });
  for (int32_t slots = 0; slots <= 18; ++slots) {
    const std::set<int32_t> list(order.begin(), order.begin() + slots);
    CHECK(by_use[slots] ==
          std::ranges::count_if(accesses.keys, [&](int32_t key) { return list.count(key) > 0; }));
  }
  // By another popularity, here the key's own number.
  std::vector<double> popularity(18);
  std::iota(popularity.begin(), popularity.end(), 0.0);
  CHECK(static_curve(accesses, popularity)[1] == std::ranges::count(accesses.keys, 17));
}

namespace {

// Drives a policy as a cache does and hands every victim, with all that might have gone, to
// `judge`, and every step's keys to `use`.
template <typename Use, typename Judge>
void drive(const Accesses& accesses, CachePolicy& policy, int64_t slots, Use use, Judge judge) {
  std::set<int32_t> held;
  for (int64_t s = 0; s < accesses.steps(); ++s) {
    policy.begin_step(accesses.layer[s]);
    use(s);
    std::set<int32_t> may_go = held;
    for (const int32_t key : accesses.step(s)) {
      policy.touch(key);
      if (may_go.erase(key)) policy.remove(key);
    }
    for (const int32_t key : accesses.step(s)) {
      if (held.count(key)) continue;
      if (std::ssize(held) == slots) {
        const int32_t victim = policy.victim();
        REQUIRE(may_go.count(victim) == 1);
        judge(s, victim, may_go);
        may_go.erase(victim);
        held.erase(victim);
      }
      held.insert(key);
    }
    for (const int32_t key : accesses.step(s)) policy.add(key);
  }
}

}  // namespace

TEST_CASE("LFU gives up a key with the least faded count") {
  const Accesses accesses = accesses_of(random_trace(3, 20, 3, 400, 2));
  for (const double half_life : {1.0, 5.0, 64.0}) {
    const auto policy = make_lfu_policy(shape_of(accesses), half_life);
    std::vector<double> count(accesses.pairs(), 0);
    int64_t judged = 0;
    drive(
        accesses, *policy, 24,
        [&](int64_t s) {
          if (accesses.layer[s] == 0) {
            for (double& c : count) c *= std::exp2(-1 / half_life);
          }
          for (const int32_t key : accesses.step(s)) count[key] += 1;
        },
        [&](int64_t, int32_t victim, const std::set<int32_t>& may_go) {
          for (const int32_t key : may_go) CHECK(count[victim] <= count[key] * (1 + 1e-9));
          ++judged;
        });
    CHECK(judged > 100);
  }
}

TEST_CASE("the reuse policy gives up a key whose next use is expected farthest away") {
  const int32_t layers = 3;
  const Accesses accesses = accesses_of(random_trace(layers, 20, 3, 200, 2));
  const auto policy = make_reuse_policy(shape_of(accesses));
  int64_t judged = 0, unlike_lru = 0;
  drive(
      accesses, *policy, 24, [](int64_t) {},
      [&](int64_t s, int32_t victim, const std::set<int32_t>& may_go) {
        const auto wait = [&](int32_t key) {
          const int32_t layer = key / accesses.experts;
          double chance = 0;
          for (int64_t visit = layer; visit <= s; visit += layers) {
            const auto step = accesses.step(visit);
            if (std::find(step.begin(), step.end(), key) == step.end()) continue;
            // Visits of the layer since then.
            const auto age = static_cast<double>((s - layer) / layers - (visit - layer) / layers);
            const double lives[] = {0.5, 5, 64, 512}, weights[] = {0.2, 0.6, 0.12, 0.08};
            for (int m = 0; m < 4; ++m) {
              chance += weights[m] * (1 - std::exp2(-1 / lives[m])) * std::exp2(-age / lives[m]);
            }
          }
          const auto now = static_cast<int32_t>(s % layers);
          const int32_t turn = layer > now ? layer - now : layer - now + layers;
          return turn + layers * (1 / std::min(chance, 1.0) - 1);
        };
        const double longest = wait(victim);
        bool oldest = true;
        for (const int32_t key : may_go) {
          CHECK(longest >= wait(key) * (1 - 1e-4));
          if (last_touch(accesses, key, s) < last_touch(accesses, victim, s)) oldest = false;
        }
        ++judged;
        unlike_lru += !oldest;
      });
  CHECK(judged > 100);
  CHECK(unlike_lru > 10);
}

TEST_CASE("a policy that holds nothing has no victim, and gives each key up once") {
  const Keys keys = {0, 5, 1, 6};
  const CacheShape shape = {2, 4};
  for (const auto& policy : {make_lru_policy(shape), make_lfu_policy(shape),
                             make_reuse_policy(shape), make_optimal_policy(shape, keys)}) {
    CHECK(policy->victim() == -1);
    for (const int32_t layer : {0, 1, 0, 1}) {
      static int at = 0;
      policy->begin_step(layer);
      policy->touch(keys[at % 4]);
      policy->add(keys[at++ % 4]);
    }
    policy->remove(5);
    std::set<int32_t> gone;
    for (int i = 0; i < 3; ++i) gone.insert(policy->victim());
    CHECK(gone == std::set<int32_t>{0, 1, 6});
    CHECK(policy->victim() == -1);
  }
}

TEST_CASE("blocks of tokens ask for each expert once a step and end with their sequence") {
  RoutingTrace trace = {2, 8, 2, {3, 2}, {}};
  trace.picks = {0, 1, 2, 3, 0, 4, 2, 3, 5, 6, 7, 1, 0, 1, 2, 3, 0, 1, 2, 3};
  const Accesses accesses = accesses_of(trace, 2);
  REQUIRE(accesses.steps() == 6);
  const auto step = [&](int64_t s) {
    return Keys(accesses.step(s).begin(), accesses.step(s).end());
  };
  CHECK(step(0) == Keys{0, 1, 4});
  CHECK(step(1) == Keys{10, 11});
  CHECK(step(2) == Keys{5, 6});
  CHECK(step(3) == Keys{15, 9});
  CHECK(step(4) == Keys{0, 1});
  CHECK(step(5) == Keys{10, 11});
  CHECK(accesses.step_keys_max == 3);
  CHECK(accesses.layer == Keys{0, 1, 0, 1, 0, 1});
  CHECK(only_layer(accesses, 1).keys == Keys{2, 3, 7, 1, 2, 3});
  CHECK(mean_working_set(accesses, 1) == doctest::Approx((5 + 4 + 4) / 3.0));
  CHECK(mean_working_set(accesses, 2) == doctest::Approx(9.0));
  CHECK(slots_of_share(accesses, 0.12) == 2);
  CHECK(slots_of_share(accesses, 1) == 16);
}
