// Decode on a virtual clock: against the cost model, the cache policies and plain reasoning.
#include "offload/sim/decode_clock.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "offload/sim/cache_curves.h"
#include "offload/sim/expert_tiers.h"
#include "offload/sim/predictor.h"
#include "offload/sim/routing_generator.h"
#include "offload/sim/transfer_queue.h"
#include "plan_case.h"

namespace hearth {
namespace {

using test::RandomCases;
using test::small_disk;
using test::small_gpu;
using test::small_machine;
using test::small_model;

constexpr int64_t kMiB = 1 << 20;

PlanRequest request_of(std::optional<int64_t> ram_budget = {}) {
  PlanRequest request;
  request.work = {.context = 256, .depth = 256, .prompt = 256, .answer = 256};
  request.chunk_tokens = 64;
  request.ram_budget = ram_budget;
  return request;
}

ModelShape without_hashed(ModelShape model) {
  for (LayerShape& layer : model.layers) layer.hashed = false;
  return model;
}

Machine machine_with_disk(double gb_s, double latency_us = 0) {
  Machine machine = small_machine();
  machine.disks = {small_disk()};
  machine.disks[0].rates = {{4096, 32, gb_s, latency_us}};
  return machine;
}

// `random`: every expert alike, without habits.
Accesses routing_of(const ModelShape& model, int64_t tokens, uint64_t seed = 1,
                    bool random = false) {
  const auto layers = static_cast<int32_t>(model.layers.size());
  RoutingModel routing = routing_like_flash(layers, model.experts, model.experts_used);
  if (random) routing = random_routing(layers, model.experts, model.experts_used);
  return accesses_of(RoutingGenerator(routing, seed).generate(std::span(&tokens, 1)));
}

Residency lru_of(const Accesses& accesses) {
  return {
      [shape = CacheShape{accesses.layers, accesses.experts}] { return make_lru_policy(shape); },
      {}};
}

struct Simulated {
  Plan plan;
  ClockResult result;
};

Simulated simulate(const Machine& machine, const ModelShape& model, const PlanRequest& request,
                   const Accesses& accesses, const Residency& residency,
                   const ClockSettings& settings = {}) {
  Simulated all;
  all.plan = make_plan(machine, model, request);
  REQUIRE(all.plan.fits());
  const CpuRates cpu(machine, all.plan.isa, all.plan.threads);
  const CostModel costs(machine, model, cpu, planned_gpu(machine, request), request.hits);
  all.result = simulate_decode(machine, model, all.plan, costs, accesses, residency, settings);
  return all;
}

double waiting(const ClockResult& result) {
  return result.cost.seconds[static_cast<int>(Resource::kDisk)];
}

// All keys of a tier, in the order in which they are loaded.
std::vector<int32_t> keys_in(const std::vector<Tier>& tiers, Tier tier) {
  std::vector<int32_t> keys;
  for (size_t key = 0; key < tiers.size(); ++key) {
    if (tiers[key] == tier) keys.push_back(static_cast<int32_t>(key));
  }
  return keys;
}

void check_sane(const ClockResult& r) {
  CHECK(std::isfinite(r.seconds));
  CHECK(r.seconds > 0);
  CHECK(r.cost.total() == doctest::Approx(r.seconds));
  for (const double s : r.cost.seconds) CHECK(s >= 0);
  CHECK(r.late_hits <= r.vram_hits);
  CHECK(r.vram_hits + r.ram_hits <= r.uses);
  CHECK(r.right_guesses <= r.guesses);
  CHECK(r.wasted_bytes <= r.disk_bytes);
  CHECK(r.disk_gb_s() <= r.disk_profile_gb_s * 1.000001);
}

}  // namespace

TEST_CASE("where all lies in one memory the clock and the cost model agree") {
  const ModelShape model = small_model(6, 64, 4080);
  const Accesses accesses = routing_of(model, 100);
  const Simulated in_ram =
      simulate(small_machine(), model, request_of(), accesses, lru_of(accesses));
  CHECK(in_ram.result.ram_hits == in_ram.result.uses);
  CHECK(in_ram.result.tok_s() == doctest::Approx(in_ram.plan.predict.decode_tok_s).epsilon(1e-6));
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  const Simulated in_vram = simulate(machine, model, request_of(), accesses, lru_of(accesses));
  CHECK(in_vram.result.vram_hits == in_vram.result.uses);
  CHECK(in_vram.result.tok_s() == doctest::Approx(in_vram.plan.predict.decode_tok_s).epsilon(1e-6));
}

TEST_CASE("experts that stay where they are, picked at random: near the cost model on two tiers") {
  ModelShape model = without_hashed(small_model(12, 128, 4080));
  model.experts_used = 32;  // many, so that all layers are near the mean that the cost model takes
  const Accesses accesses = routing_of(model, 100, 3, true);
  for (const bool gpu : {false, true}) {
    CAPTURE(gpu);
    Machine machine = machine_with_disk(5);
    if (gpu) machine.gpus = {small_gpu()};
    if (gpu) machine.gpus[0].memory_bytes = int64_t{2} << 30;
    PlanRequest request = request_of(gpu ? int64_t{8} << 30 : int64_t{3} << 30);
    request.hits = HitCurve::of_random_picks();
    const auto [plan, result] = simulate(machine, model, request, accesses, {});
    CHECK((plan.vram.experts > 100) == gpu);
    CHECK((plan.nvme.experts > 100) == !gpu);
    const auto uses = static_cast<double>(result.uses);
    const int64_t in_memory = result.vram_hits + result.ram_hits;
    CHECK(static_cast<double>(result.vram_hits) / uses ==
          doctest::Approx(plan.predict.vram_hit_rate).epsilon(0.05));
    CHECK(static_cast<double>(in_memory) / uses ==
          doctest::Approx(plan.predict.memory_hit_rate).epsilon(0.05));
    const double share = result.tok_s() / plan.predict.decode_tok_s;
    MESSAGE(share << " of what is predicted");
    CHECK(share == doctest::Approx(1).epsilon(0.05));
    CHECK(result.exchanged_bytes == 0);
  }
}

TEST_CASE("an expert from disk is computed when it is there, the others before it") {
  const ModelShape model = without_hashed(small_model(1, 4, 4080));
  Accesses accesses;
  accesses.layers = 1;
  accesses.experts = 4;
  accesses.step_keys_max = 4;
  constexpr int kTokens = 3;
  for (int token = 1; token <= kTokens; ++token) {
    accesses.keys.insert(accesses.keys.end(), {0, 1, 2, 3});
    accesses.ends.push_back(4 * token);
    accesses.layer.push_back(0);
  }
  ClockSettings settings;
  settings.warm_up = 0;
  // One read takes as long as 5 experts, or as half of one.
  for (const double reading : {5.0, 0.5}) {
    Machine machine = machine_with_disk(1);
    Plan plan = make_plan(machine, model, request_of());
    plan.layers = {{false, 0, 3, 1}};
    const auto bytes = static_cast<double>(model.layers[0].expert_bytes);
    const CpuRates cpu(machine, plan.isa, plan.threads);
    const double each = cpu.multiply(model.layers[0].expert, 1).total();
    machine.disks[0].rates[0].read_gb_s = bytes / (reading * each) / 1e9;
    const CostModel costs(machine, model, cpu, nullptr, HitCurve::of_random_picks());
    const ClockResult result =
        simulate_decode(machine, model, plan, costs, accesses, {{}, {0, 1, 1, 1}}, settings);
    const double dense = costs.layer_step(plan.placement, plan.work, 0).total() +
                         costs.head_step(plan.placement, plan.work).total();
    CHECK(result.ram_hits == 3 * kTokens);
    CHECK(result.seconds ==
          doctest::Approx(kTokens * (dense + (reading > 3 ? reading + 1 : 4) * each)));
    CHECK(waiting(result) == doctest::Approx(kTokens * (reading > 3 ? 2 : 0) * each));
  }
}

TEST_CASE("experts begin where the plan's order puts them, or where their popularity does") {
  Plan plan;
  plan.layers = {{true, 1, 1, 1, {}}, {true, 1, 1, 1, {2, 0, 1}}};
  constexpr Tier kV = Tier::kVram, kR = Tier::kRam, kD = Tier::kDisk;
  CHECK(planned_tiers(plan, 3, {}) == std::vector<Tier>{kV, kR, kD, kR, kD, kV});
  const std::vector<double> popularity = {1, 3, 2, 1, 2, 3};
  CHECK(planned_tiers(plan, 3, popularity) == std::vector<Tier>{kD, kV, kR, kD, kR, kV});
}

TEST_CASE("hits are those of the policies, each with its tier") {
  const ModelShape model = small_model(6, 64, 1020);
  const Accesses accesses = routing_of(model, 300);
  const CacheShape shape{accesses.layers, accesses.experts};
  ClockSettings all_tokens;
  all_tokens.warm_up = 0;
  const PlanRequest request = request_of(200 * kMiB);
  const std::vector<std::function<std::unique_ptr<CachePolicy>()>> policies = {
      [&] { return make_lru_policy(shape); }, [&] { return make_lfu_policy(shape); },
      [&] { return make_reuse_policy(shape); },
      [&] { return make_optimal_policy(shape, accesses.keys); }};
  Machine machine = machine_with_disk(1);
  for (const auto& make : policies) {
    const auto [plan, result] = simulate(machine, model, request, accesses, {make, {}}, all_tokens);
    const std::vector<Tier> tiers = planned_tiers(plan, model.experts, {});
    CHECK(plan.nvme.experts > 50);
    CHECK(result.ram_hits ==
          count_hits(accesses, *make(), plan.ram.experts, keys_in(tiers, Tier::kRam)));
    CHECK(result.vram_hits == 0);
    CHECK(result.disk_bytes ==
          static_cast<double>((result.uses - result.ram_hits) * model.layers[0].expert_bytes));
  }
  machine.cpu.loop_us = 20;  // so that the GPU gets all layers
  machine.gpus = {small_gpu()};
  machine.gpus[0].memory_bytes = 600 * kMiB;
  for (const auto& make : policies) {
    const auto [plan, result] = simulate(machine, model, request, accesses, {make, {}}, all_tokens);
    REQUIRE(plan.placement.gpu_layers == 6);
    CHECK(plan.nvme.experts > 0);
    std::vector<Tier> tiers = planned_tiers(plan, model.experts, {});
    const std::vector<int32_t> vram = keys_in(tiers, Tier::kVram);
    CHECK(result.vram_hits == count_hits(accesses, *make(), plan.vram.experts, vram));
    if (&make != &policies[0]) continue;
    // Of the least recently used, both tiers together are one cache.
    std::vector<int32_t> loaded = keys_in(tiers, Tier::kRam);
    loaded.insert(loaded.end(), vram.begin(), vram.end());
    CHECK(result.vram_hits + result.ram_hits ==
          count_hits(accesses, *make(), plan.vram.experts + plan.ram.experts, loaded));
  }
}

TEST_CASE("half the disk's bandwidth doubles the waiting for it") {
  const ModelShape model = without_hashed(small_model(4, 64, 4080));
  const Accesses accesses = routing_of(model, 300);
  const PlanRequest request = request_of(400 * kMiB);
  const Residency lru = lru_of(accesses);
  const ClockResult fast = simulate(machine_with_disk(1), model, request, accesses, lru).result;
  const ClockResult slow = simulate(machine_with_disk(0.5), model, request, accesses, lru).result;
  CHECK(waiting(fast) > 0.5 * fast.seconds);
  CHECK(waiting(slow) / waiting(fast) == doctest::Approx(2).epsilon(0.05));
  CHECK(fast.disk_gb_s() == doctest::Approx(1).epsilon(0.001));
  CHECK(slow.disk_bytes == fast.disk_bytes);
  Machine two = machine_with_disk(0.5);
  two.disks.push_back(two.disks[0]);
  CHECK(simulate(two, model, request, accesses, lru).result.seconds ==
        doctest::Approx(fast.seconds).epsilon(1e-9));
  // A read takes its latency besides.
  const ClockResult late =
      simulate(machine_with_disk(1, 500), model, request, accesses, lru).result;
  CHECK(late.seconds > fast.seconds);
}

TEST_CASE("more memory is never slower") {
  const ModelShape model = small_model(6, 64, 1020);
  const Accesses accesses = routing_of(model, 400);
  for (const bool gpu : {false, true}) {
    Machine machine = machine_with_disk(1);
    if (gpu) machine.gpus = {small_gpu()};
    if (gpu) machine.gpus[0].memory_bytes = 550 * kMiB;
    double before = HUGE_VAL;
    int64_t on_disk = model.expert_count();
    for (int64_t ram = 120; ram <= 600; ram += 40) {
      CAPTURE(ram);
      const auto [plan, result] =
          simulate(machine, model, request_of(ram * kMiB), accesses, lru_of(accesses));
      CHECK(result.seconds <= before * 1.000001);
      before = result.seconds;
      on_disk = plan.nvme.experts;
    }
    CHECK(on_disk == 0);
  }
}

TEST_CASE("a perfect guess is never slower than none, a wrong one costs bandwidth") {
  RandomCases random(5);
  const ModelShape model = small_model(8, 64, 1020);
  const Accesses accesses = routing_of(model, 120);
  for (int i = 0; i < 20; ++i) {
    CAPTURE(i);
    const Machine machine = machine_with_disk(random.real(0.5, 40), random.real(0, 100));
    const PlanRequest request = request_of(random.whole(130, 500) * kMiB);
    ClockSettings settings;
    const auto run = [&](double precision) {
      settings.prefetch = precision;
      return simulate(machine, model, request, accesses, lru_of(accesses), settings).result;
    };
    const ClockResult none = run(0), perfect = run(1), half = run(0.5), wrong = run(1e-12);
    CHECK(perfect.seconds <= none.seconds * 1.000000001);
    CHECK(waiting(perfect) <= waiting(none) + 1e-9);
    if (waiting(none) > 0) CHECK(perfect.seconds < none.seconds);
    CHECK(perfect.disk_bytes == none.disk_bytes);
    CHECK(perfect.right_guesses == perfect.guesses);
    CHECK(perfect.wasted_bytes == 0);
    CHECK(none.guesses == 0);
    // Reads that nobody needs come on top, and hold up those that somebody does.
    CHECK(half.disk_bytes == doctest::Approx(none.disk_bytes + half.wasted_bytes).epsilon(0.02));
    CHECK(half.wasted_bytes > 0);
    CHECK(wrong.right_guesses == 0);
    CHECK(wrong.seconds >= none.seconds * 0.999999999);
    for (const ClockResult* r : {&perfect, &half, &wrong}) {
      CHECK(r->ram_hits == none.ram_hits);
      check_sane(*r);
    }
  }
}

TEST_CASE("experts of hash-routed layers are read while the layers before compute") {
  const Machine machine = machine_with_disk(3);
  ModelShape model = without_hashed(small_model(6, 64, 1020));
  const Accesses accesses = routing_of(model, 200);
  const PlanRequest request = request_of(150 * kMiB);
  const ClockResult unknown = simulate(machine, model, request, accesses, {}).result;
  model.layers[5].hashed = true;
  const ClockResult known = simulate(machine, model, request, accesses, {}).result;
  CHECK(known.seconds < unknown.seconds);
  CHECK(known.disk_bytes == unknown.disk_bytes);
  CHECK(known.wasted_bytes == 0);
}

TEST_CASE("stalls delay and change nothing else; the same seed is the same run") {
  const ModelShape model = small_model(6, 64, 1020);
  const Accesses accesses = routing_of(model, 300);
  Machine machine = machine_with_disk(4, 80);
  machine.gpus = {small_gpu()};
  machine.gpus[0].memory_bytes = 550 * kMiB;
  const PlanRequest request = request_of(200 * kMiB);
  ClockSettings settings;
  settings.prefetch = 0.7;
  const auto run = [&] {
    return simulate(machine, model, request, accesses, lru_of(accesses), settings).result;
  };
  const ClockResult smooth = run();
  CHECK(run().hash() == smooth.hash());
  settings.stall_seconds = 0.05;
  const ClockResult stalled = run();
  CHECK(run().hash() == stalled.hash());
  CHECK(stalled.seconds > smooth.seconds + 2 * 0.05);
  CHECK(stalled.vram_hits == smooth.vram_hits);
  CHECK(stalled.ram_hits == smooth.ram_hits);
  CHECK(stalled.disk_bytes == smooth.disk_bytes);
  CHECK(stalled.wasted_bytes == smooth.wasted_bytes);
  settings.seed = 2;
  CHECK(run().hash() != stalled.hash());
  CHECK(run().vram_hits == smooth.vram_hits);
}

TEST_CASE("what moves into VRAM takes the link: a slow one leaves its copies late") {
  const ModelShape model = small_model(6, 64, 4080);
  const Accesses accesses = routing_of(model, 300);
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  machine.gpus[0].memory_bytes = int64_t{1} << 30;
  const Residency lru = lru_of(accesses);
  const ClockResult quick = simulate(machine, model, request_of(), accesses, lru).result;
  CHECK(quick.exchanged_bytes > 0);
  machine.gpus[0].to_gpu_gb_s = machine.gpus[0].to_gpu_beside_cpu_gb_s = 0.5;
  const ClockResult slow = simulate(machine, model, request_of(), accesses, lru).result;
  CHECK(slow.vram_hits == quick.vram_hits);
  CHECK(slow.late_hits > quick.late_hits);
  CHECK(slow.seconds > quick.seconds);
  CHECK(slow.exchanged_bytes / slow.seconds < 0.55e9);
}

TEST_CASE("random machines and models: whole, finite and in time") {
  RandomCases random(17);
  int simulated = 0, with_disk = 0, with_gpu = 0;
  for (int i = 0; i < 400; ++i) {
    CAPTURE(i);
    const Machine machine = random.machine();
    const ModelShape model = random.model();
    PlanRequest request = random.request();
    request.work.parallel = 1;
    const int64_t tokens = random.whole(1, 12);
    ClockSettings settings;
    settings.warm_up = random.real(0, 0.99);
    settings.prefetch = random.whole(0, 1) == 0 ? 0 : random.real(0, 1);
    settings.stall_seconds = random.whole(0, 1) == 0 ? 0 : random.real(0, 1);
    const Plan plan = make_plan(machine, model, request);
    if (!plan.fits()) continue;
    const Accesses accesses = routing_of(model, tokens, i, random.whole(0, 1) == 0);
    const CacheShape shape{accesses.layers, accesses.experts};
    const auto [_, result] = simulate(
        machine, model, request, accesses,
        {[&] { return i % 2 == 0 ? make_lru_policy(shape) : make_reuse_policy(shape); }, {}},
        settings);
    check_sane(result);
    CHECK(result.tokens >= 1);
    CHECK(result.tokens <= tokens);
    CHECK(result.uses == result.tokens * model.experts_used * std::ssize(model.layers));
    if (plan.nvme.experts == 0) CHECK(result.disk_bytes == 0);
    ++simulated;
    with_disk += result.disk_bytes > 0;
    with_gpu += result.vram_hits > 0;
  }
  MESSAGE(simulated << " simulated, " << with_disk << " read a disk, " << with_gpu
                    << " found experts in VRAM");
  CHECK(simulated > 100);
  CHECK(with_disk > 20);
  CHECK(with_gpu > 20);
}

TEST_CASE("a trace without a token is an error") {
  const ModelShape model = small_model();
  Accesses none;
  none.layers = 4;
  none.experts = 16;
  const Machine machine = small_machine();
  const PlanRequest request = request_of();
  const Plan plan = make_plan(machine, model, request);
  const CpuRates cpu(machine, plan.isa, plan.threads);
  const CostModel costs(machine, model, cpu, nullptr, request.hits);
  CHECK_THROWS_WITH_AS(simulate_decode(machine, model, plan, costs, none, {}, {}),
                       doctest::Contains("no token"), Error);
}

TEST_CASE("tiers hold as many as they did, whatever is used") {
  RandomCases random(23);
  for (int i = 0; i < 50; ++i) {
    CAPTURE(i);
    const auto layers = static_cast<int32_t>(random.whole(1, 5));
    const auto experts = static_cast<int32_t>(random.whole(1, 20));
    const CacheShape shape{layers, experts};
    const auto gpu_from = static_cast<int32_t>(random.whole(0, layers));
    std::vector<Tier> tiers(shape.pairs());
    for (int32_t key = 0; key < shape.pairs(); ++key) {
      const int64_t draw = random.whole(0, 2);
      tiers[key] = draw == 0 && key / experts >= gpu_from ? Tier::kVram
                   : draw == 1                            ? Tier::kRam
                                                          : Tier::kDisk;
    }
    const auto count = [&](const auto& of, Tier tier) {
      int32_t n = 0;
      for (int32_t key = 0; key < shape.pairs(); ++key) n += of(key) == tier;
      return n;
    };
    const auto start = [&](int32_t key) { return tiers[key]; };
    ExpertTiers moved(shape, tiers, make_lru_policy(shape), make_lru_policy(shape));
    const auto now = [&](int32_t key) { return moved.of(key); };
    std::vector<Tier> found;
    std::vector<int32_t> entered;
    for (int32_t step = 0; step < 40; ++step) {
      const int32_t layer = step % layers;
      std::vector<int32_t> keys;
      for (int32_t e = 0; e < experts; ++e) {
        if (random.whole(0, 2) == 0) keys.push_back(layer * experts + e);
      }
      moved.use(layer, layer >= gpu_from, keys, found, entered);
      CHECK(found.size() == keys.size());
      for (const int32_t key : entered) CHECK(moved.of(key) == Tier::kVram);
      for (const Tier tier : {Tier::kVram, Tier::kRam})
        CHECK(count(now, tier) == count(start, tier));
    }
    for (int32_t key = 0; key < gpu_from * experts; ++key) CHECK(moved.of(key) != Tier::kVram);
  }
}

TEST_CASE("at first memory holds the most popular of each layer") {
  Plan plan;
  plan.layers = {{true, 1, 1, 1}, {false, 0, 1, 2}};
  const std::vector<double> popularity = {1, 3, 2, 0, 1, 5};
  using enum Tier;
  CHECK(planned_tiers(plan, 3, popularity) ==
        std::vector<Tier>{kDisk, kVram, kRam, kDisk, kDisk, kRam});
  CHECK(planned_tiers(plan, 3, {}) == std::vector<Tier>{kVram, kRam, kDisk, kRam, kDisk, kDisk});
}

TEST_CASE("a predictor is as often right as it is said to be") {
  const std::vector<int32_t> keys = {20, 23, 29};
  std::vector<int32_t> guesses;
  Predictor predictor(0.8, 10, 1);
  int right = 0, all = 0;
  for (int i = 0; i < 5000; ++i) {
    predictor.guess(20, keys, guesses);
    for (const int32_t key : guesses) {
      CHECK(key >= 20);
      CHECK(key < 30);
      right += std::ranges::find(keys, key) != keys.end();
      ++all;
    }
  }
  CHECK(all == 15000);
  CHECK(right == doctest::Approx(0.8 * all).epsilon(0.02));
  // Where all are used no guess can be wrong.
  Predictor(0, 3, 1).guess(0, std::vector<int32_t>{0, 1, 2}, guesses);
  CHECK(guesses.empty());
}

TEST_CASE("transfers queue up, and their latencies pass side by side") {
  TransferQueue queue(100, 0.5);
  CHECK(queue.submit(1, 100) == doctest::Approx(2.5));
  CHECK(queue.submit(1, 200) == doctest::Approx(4.5));
  CHECK(queue.submit(3, 100, 10) == doctest::Approx(15.5));
  CHECK(queue.busy_seconds() == doctest::Approx(14.5));
  CHECK(queue.submit(20, 100) == doctest::Approx(21.5));
  CHECK(queue.busy_seconds() == doctest::Approx(16));
  CHECK(queue.bytes() == 500);
}

}  // namespace hearth
