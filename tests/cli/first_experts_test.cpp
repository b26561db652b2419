// Which experts an engine has in memory at first: those that a recorded text used most, or that
// tables of token ids name.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "device/fake_device.h"
#include "engine/engine.h"
#include "offload/sim/trace_use.h"
#include "planned.h"
#include "program.h"
#include "support.h"

using namespace hearth;
using test::Ran;
using test::run_hearth;
using Json = nlohmann::ordered_json;

namespace {

constexpr int32_t kLayers = 5, kExperts = 16;  // of the demo model

// A trace of some of the demo text, written by `hearth trace`.
class Recorded {
 public:
  Recorded() {
    const std::string text = folder_.path() / "text.txt";
    std::ofstream(text) << test::read_text(test::data("demo/demo.txt")).substr(0, 1500);
    const Ran ran = run_hearth({"trace", "-f", text, "--out", path(), "--threads", "1"});
    CAPTURE(ran.err);
    REQUIRE(ran.exit_code == 0);
    trace = read_trace(path());
    REQUIRE(trace.layers == kLayers);
    REQUIRE(trace.experts == kExperts);
  }
  std::string path() const { return folder_.path() / "text.trace"; }

  // All keys by how often they were picked, of equals the lower one first.
  std::vector<int32_t> ranking() const {
    std::vector<std::pair<int64_t, int32_t>> order;
    for (int32_t key = 0; key < kLayers * kExperts; ++key) order.emplace_back(0, key);
    for (int64_t token = 0; token < trace.tokens(); ++token) {
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        for (const uint16_t e : trace.at(token, layer)) --order[layer * kExperts + e].first;
      }
    }
    std::ranges::sort(order);
    std::vector<int32_t> keys;
    for (const auto& [picks, key] : order) keys.push_back(key);
    return keys;
  }

  RoutingTrace trace;

 private:
  test::TemporaryFolder folder_;
};

EngineOptions demo_options(const Recorded& recorded) {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.chunk_tokens = 8;
  options.context = 24;
  options.threads = 1;
  options.isa = "avx2";
  options.use_gpu = false;
  options.recorded = recorded_use(recorded.trace, recorded.path());
  return options;
}

void use_fake_gpu(EngineOptions& options) {
  options.use_gpu = true;
  options.open_gpu = [] {
    return FoundDevice{make_fake_device({.memory_bytes = int64_t{1} << 30}), ""};
  };
}

// Under a budget that leaves no more slots than these.
std::unique_ptr<Engine> open_with_cache(EngineOptions& options, int64_t slots_most) {
  options.ram_budget = int64_t{80} << 20;
  while (test::slots_of(test::plan_of(options)) > slots_most) *options.ram_budget -= 512 << 10;
  return Engine::open(options);
}

std::set<int32_t> in_cache(const ExpertCache& cache) {
  std::set<int32_t> keys;
  for (int32_t key = 0; key < kLayers * kExperts; ++key) {
    if (!cache.is_absent(key / kExperts, key % kExperts)) keys.insert(key);
  }
  return keys;
}

struct Picked : ForwardObserver {
  void streams(int32_t, const float*, int64_t, int64_t) override {}
  void picks(int32_t layer, const int32_t* picks, int64_t n) override {
    for (int64_t i = 0; i < n * 2; ++i) keys.push_back(layer * kExperts + picks[i]);
  }
  std::vector<int32_t> keys;
};

// The keys that some tokens of a new session picked, and its last logits.
std::vector<int32_t> picks_of(Engine& engine, std::vector<float>& logits) {
  const std::vector<int32_t> tokens = {5, 40, 77, 300};
  const auto session = engine.new_session();
  const Feed feed{session.get(), tokens};
  Picked picked;
  const auto out = engine.step({&feed, 1}, LogitRows::kLast, &picked);
  logits.assign(out.begin(), out.end());
  return picked.keys;
}

}  // namespace

TEST_CASE(
    "a cache holds at first what the recorded text used most, also where a plan is replayed") {
  const Recorded recorded;
  EngineOptions options = demo_options(recorded);
  const auto engine = open_with_cache(options, 30);
  REQUIRE(engine != nullptr);
  const ExpertCache& cache = *engine->cache();
  const std::vector<int32_t> ranking = recorded.ranking();
  const std::set<int32_t> expected(ranking.begin(), ranking.begin() + cache.slots());
  CHECK(in_cache(cache) == expected);
  CHECK(cache.stats().uses == 0);
  CHECK(cache.stats().reads.bytes == 0);  // figures are of what follows

  // Nothing is missing where a layer finds what it wants; the first has not lost any yet.
  std::vector<float> logits, whole_logits;
  const std::vector<int32_t> picked = picks_of(*engine, logits);
  std::set<int32_t> first_layer;
  for (const int32_t key : picked) {
    if (key < kExperts) first_layer.insert(key);
  }
  const auto held =
      std::ranges::count_if(first_layer, [&](int32_t k) { return expected.contains(k); });
  CHECK(cache.layer_uses()[0].uses == std::ssize(first_layer));
  CHECK(cache.layer_uses()[0].hits == held);
  options.ram_budget.reset();
  picks_of(*Engine::open(options), whole_logits);
  CHECK(logits == whole_logits);

  EngineOptions replay = options;
  replay.plan = engine->plan();
  replay.recorded.reset();
  const auto replayed = Engine::open(replay);
  CHECK(replayed->plan().hash() == engine->plan().hash());
  CHECK(in_cache(*replayed->cache()) == expected);
  replay.plan->layers[1].order.pop_back();
  CHECK_THROWS_WITH_AS(Engine::open(replay), doctest::Contains("doesn't place the 16 experts"),
                       Error);
}

TEST_CASE("without a recording a cache begins with what the tables of hash-routed layers name") {
  const Recorded recorded;
  EngineOptions options = demo_options(recorded);
  options.recorded.reset();
  const auto engine = open_with_cache(options, 30);
  REQUIRE(engine != nullptr);
  const Plan& plan = engine->plan();
  std::set<int32_t> expected;
  int64_t named = 0, lowest = 0;  // picks that the first quarter of each layer serves
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const LayerPlan& at = plan.layers[layer];
    REQUIRE(at.order.size() == (layer < 2 ? kExperts : 0));
    if (layer >= 2) continue;
    for (int32_t i = 0; i < at.ram_experts; ++i) expected.insert(layer * kExperts + at.order[i]);
    const std::set<int32_t> quarter(at.order.begin(), at.order.begin() + kExperts / 4);
    for (int64_t token = 0; token < recorded.trace.tokens(); ++token) {
      for (const uint16_t expert : recorded.trace.at(token, layer)) {
        named += quarter.contains(expert);
        lowest += expert < kExperts / 4;
      }
    }
  }
  CHECK(in_cache(*engine->cache()) == expected);
  CHECK(static_cast<double>(named) > 1.2 * static_cast<double>(lowest));

  EngineOptions replay = options;
  replay.plan = plan;
  CHECK(in_cache(*Engine::open(replay)->cache()) == expected);
}

TEST_CASE("VRAM holds at first what the recorded text used most, the cache what follows it") {
  const Recorded recorded;
  EngineOptions options = demo_options(recorded);
  use_fake_gpu(options);
  const Plan whole = test::plan_of(options);
  REQUIRE(whole.vram.experts == kLayers * kExperts);
  options.gpu_budget = whole.vram.used - whole.routed_bytes / 2;
  for (const bool has_cache : {false, true}) {
    CAPTURE(has_cache);
    const auto engine = has_cache ? open_with_cache(options, 20) : Engine::open(options);
    REQUIRE(engine != nullptr);
    REQUIRE(engine->gpu() != nullptr);
    const int64_t in_vram = engine->plan().vram.experts;
    REQUIRE(in_vram > 5);
    REQUIRE(in_vram < kLayers * kExperts);
    const std::vector<int32_t> ranking = recorded.ranking();
    const std::set<int32_t> expected(ranking.begin(), ranking.begin() + in_vram);
    REQUIRE((engine->cache() != nullptr) == has_cache);
    if (has_cache) {
      const auto next = ranking.begin() + in_vram;
      CHECK(in_cache(*engine->cache()) == std::set<int32_t>(next, next + engine->cache()->slots()));
    }
    // No expert changes its place in the first step.
    std::vector<float> logits;
    const std::vector<int32_t> picked = picks_of(*engine, logits);
    const auto hits =
        std::ranges::count_if(picked, [&](int32_t k) { return expected.contains(k); });
    CHECK(hits > 0);
    CHECK(engine->vram_hit_rate() ==
          doctest::Approx(static_cast<double>(hits) / static_cast<double>(picked.size())));
    // The answers are those of any other set.
    EngineOptions other = options;
    other.recorded.reset();
    std::vector<float> other_logits;
    picks_of(*Engine::open(other), other_logits);
    CHECK(test::max_difference(logits, other_logits) < 1e-4);
  }
}

TEST_CASE("run and bench take a trace, say so, and plan --trace gives the plan they follow") {
  const Recorded recorded;
  const test::TemporaryFolder folder;
  const std::string plan_file = folder.path() / "plan.json";
  const std::vector<std::string> budget = {"--isa", "avx2",         "--threads",
                                           "1",     "--ram-budget", "75MiB"};
  const auto with = [&](std::vector<std::string> arguments, std::vector<std::string> more) {
    arguments.insert(arguments.end(), budget.begin(), budget.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_hearth(arguments);
  };
  const std::string profile = test::profiles() / "zen4-2c-24g.json";
  const Ran planned =
      with({"plan", "--json", "--machine", profile, "--ctx", "64"}, {"--trace", recorded.path()});
  CAPTURE(planned.err);
  REQUIRE(planned.exit_code == 0);
  const Json plan = Json::parse(planned.out);
  REQUIRE(plan["tiers"]["nvme"]["experts"] > 0);
  std::vector<int32_t> first;  // keys in RAM
  for (size_t l = 0; l < plan["layers"].size(); ++l) {
    const Json& layer = plan["layers"][l];
    for (int i = 0; i < layer["ram"].get<int>(); ++i) {
      first.push_back(static_cast<int32_t>(l) * kExperts + layer["order"][i].get<int>());
    }
  }
  std::vector<int32_t> expected = recorded.ranking();
  expected.resize(first.size());
  std::ranges::sort(first);
  std::ranges::sort(expected);
  CHECK(first == expected);
  CHECK(plan["why"].dump().find("text.trace used most") != std::string::npos);

  std::ofstream(plan_file) << planned.out;
  const std::vector<std::string> run = {
      "run", "-p", "Recite Psalms 23:1.", "--temp", "0", "-n", "4", "--ctx", "64"};
  const Ran followed = with(run, {"--plan", plan_file});
  CAPTURE(followed.err);
  CHECK(followed.exit_code == 0);
  CHECK(followed.err.find(plan["hash"].get<std::string>()) != std::string::npos);
  for (const Ran& ran : {with(run, {"--trace", recorded.path()}), followed}) {
    CAPTURE(ran.err);
    CHECK(ran.exit_code == 0);
    CHECK(ran.err.find("in 5 of 5 layers those likely to be used most") != std::string::npos);
  }
  const Ran bench =
      with({"bench", "-p", "16", "-n", "2", "-r", "1", "--json"}, {"--trace", recorded.path()});
  CAPTURE(bench.err);
  CHECK(bench.exit_code == 0);

  const Ran both = with(run, {"--plan", plan_file, "--trace", recorded.path()});
  CHECK(both.exit_code == 2);
  CHECK(both.err.find("--trace") != std::string::npos);
}

TEST_CASE("a trace of another model or without tokens is refused before anything is loaded") {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() / "other.trace";
  RoutingTrace trace = {kLayers, kExperts + 1, 2, {1}, std::vector<uint16_t>(kLayers * 2, 3)};
  for (size_t i = 0; i < trace.picks.size(); i += 2) trace.picks[i] = 1;
  write_trace(trace, path);
  for (const char* command : {"run", "plan"}) {
    CAPTURE(command);
    const Ran ran = run_hearth({command, "--trace", path});
    CHECK(ran.exit_code == 1);
    CHECK(ran.err.find("other.trace: has 5 layers of 17 experts, 2 used; ") != std::string::npos);
    CHECK(ran.err.find(" has 5 of 16, 2 used") != std::string::npos);
    CHECK(ran.err.find("Measuring") == std::string::npos);
  }
  write_trace({kLayers, kExperts, 2, {}, {}}, path);
  const Ran empty = run_hearth({"run", "--trace", path});
  CHECK(empty.exit_code == 1);
  CHECK(empty.err.find("holds no tokens") != std::string::npos);
}
