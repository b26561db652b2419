#include <doctest/doctest.h>

#include <cmath>
#include <ctime>
#include <limits>

#include "base/error.h"
#include "offload/plan/memory_map.h"
#include "plan_case.h"

namespace hearth {
namespace {

using test::RandomCases;
using test::request_of;
using test::small_disk;
using test::small_gpu;
using test::small_machine;
using test::small_model;

// Sanitizers make everything several times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

double seconds_of(const CostModel& costs, const Placement& placement, const Workload& work) {
  const double answers =
      static_cast<double>(work.answer) * costs.decode_step(placement, work).total();
  const double counted =
      std::min(1.0, 8 * static_cast<double>(work.answer) / static_cast<double>(work.prompt));
  return answers + counted * work.parallel * costs.prompt(placement, work).total();
}

// Each layer's experts have one place each, and none lies slower than one that was picked less.
void check_order(const ModelShape& model, const std::vector<int64_t>& picks, const Plan& plan) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  int64_t least_vram = kMost, least_ram = kMost, most_after_vram = 0, most_after_ram = 0;
  bool is_whole = true;
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    const LayerPlan& layer = plan.layers[l];
    std::vector<int32_t> sorted = layer.order;
    std::ranges::sort(sorted);
    for (int32_t e = 0; e < model.experts; ++e) is_whole = is_whole && sorted.at(e) == e;
    for (int32_t i = 0; i < model.experts; ++i) {
      const int64_t n = picks[l * model.experts + layer.order[i]];
      if (i < layer.vram_experts) {
        least_vram = std::min(least_vram, n);
        continue;
      }
      if (layer.dense_in_vram) most_after_vram = std::max(most_after_vram, n);
      if (i < layer.vram_experts + layer.ram_experts) {
        least_ram = std::min(least_ram, n);
      } else {
        most_after_ram = std::max(most_after_ram, n);
      }
    }
  }
  CHECK(is_whole);
  CHECK(least_vram >= most_after_vram);
  CHECK(least_ram >= most_after_ram);
}

void check_threads(const Machine& machine, const Plan& plan) {
  if (plan.node_threads.empty()) return;
  REQUIRE(plan.node_threads.size() == machine.nodes.size());
  int32_t threads = 0;
  for (size_t i = 0; i < machine.nodes.size(); ++i) {
    CHECK(plan.node_threads[i] <= machine.nodes[i].cores);
    threads += plan.node_threads[i];
  }
  CHECK(threads == plan.threads);
}

// Everything a plan promises whatever it was asked for.
void check_whole(const Machine& machine, const ModelShape& model, const PlanRequest& request,
                 const Plan& plan) {
  CHECK(std::ssize(plan.layers) == std::ssize(model.layers));
  int64_t vram = 0, ram = 0, nvme = 0;
  for (const LayerPlan& layer : plan.layers) {
    CHECK(layer.vram_experts + layer.ram_experts + layer.nvme_experts == model.experts);
    CHECK(layer.vram_experts >= 0);
    CHECK(layer.ram_experts >= 0);
    CHECK(layer.nvme_experts >= 0);
    if (layer.vram_experts > 0) CHECK(layer.dense_in_vram);
    vram += layer.vram_experts;
    ram += layer.ram_experts;
    nvme += layer.nvme_experts;
  }
  CHECK(vram == plan.vram.experts);
  CHECK(ram == plan.ram.experts);
  CHECK(nvme == plan.nvme.experts);
  CHECK(plan.vram.weights + plan.ram.weights + plan.nvme.weights == model.weight_bytes());
  CHECK(plan.vram.used + plan.ram.used + plan.nvme.used == plan.total_bytes());
  for (const TierPlan* tier : {&plan.vram, &plan.ram, &plan.nvme}) {
    CHECK(tier->used == tier->weights + tier->kv + tier->scratch);
  }
  if (!request.use_gpu || machine.gpus.empty()) CHECK(plan.vram.used == 0);
  if (request.recorded) check_order(model, request.recorded->picks, plan);
  check_threads(machine, plan);
  if (!plan.fits()) {
    for (const std::string& problem : plan.problems)
      CHECK(problem.find("bytes") != std::string::npos);
    return;
  }
  CHECK(plan.vram.used <= plan.vram.budget);
  CHECK(plan.ram.used <= plan.ram.budget);
  if (request.ram_budget) {
    CHECK(plan.ram.budget == std::min(*request.ram_budget, machine.memory_bytes()));
  }
  if (request.kv_budget) {
    CHECK((plan.placement.uses_gpu() ? plan.vram : plan.ram).kv <= *request.kv_budget);
  }
  if (nvme > 0) CHECK(!machine.disks.empty());
  const Prediction& predict = plan.predict;
  CHECK(std::isfinite(predict.decode_tok_s));
  CHECK(predict.decode_tok_s > 0);
  CHECK(predict.decode_tok_s_low <= predict.decode_tok_s * 1.000001);
  CHECK(predict.decode_tok_s_high >= predict.decode_tok_s * 0.999999);
  if (request.work.prompt > 0) CHECK(predict.prefill_tok_s > 0);
}

}  // namespace

TEST_CASE("random machines and models: a whole plan or the bytes that don't fit") {
  RandomCases random(7);
  int fitting = 0, with_gpu = 0, with_disk = 0, recorded = 0, on_nodes = 0;
  double slowest_ms = 0;
  constexpr int kCases = kIsSanitized ? 2000 : 10000;
  for (int i = 0; i < kCases; ++i) {
    CAPTURE(i);
    const Machine machine = random.machine();
    const ModelShape model = random.model();
    PlanRequest request = random.request();
    if (i % 3 == 0) request.recorded = random.recorded(model);
    if (i % 7 == 0) request.kv_budget = random.whole(0, int64_t{8} << 30);
    if (i % 5 == 0) request.threads = static_cast<int32_t>(random.whole(1, 130));
    const std::clock_t start = std::clock();
    const Plan plan = make_plan(machine, model, request);
    const auto taken = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    slowest_ms = std::max(slowest_ms, 1e3 * taken);
    check_whole(machine, model, request, plan);
    fitting += plan.fits();
    with_gpu += plan.vram.experts > 0;
    with_disk += plan.fits() && plan.nvme.experts > 0;
    recorded += plan.fits() && request.recorded && plan.divides_experts();
    on_nodes += !plan.node_threads.empty();
  }
  MESSAGE(fitting << " of " << kCases << " fit, " << with_gpu << " with experts in VRAM, "
                  << with_disk << " with experts on disk, " << recorded
                  << " with experts placed by a recording, " << on_nodes
                  << " on several nodes; the slowest took " << slowest_ms << " ms");
  if (!kIsSanitized) CHECK(slowest_ms < 100);  // of the processor's time
  // The cases are of every kind.
  CHECK(fitting > kCases / 4);
  CHECK(fitting < kCases * 9 / 10);
  CHECK(with_gpu > kCases / 20);
  CHECK(with_disk > kCases / 20);
  CHECK(recorded > kCases / 20);
  CHECK(on_nodes > kCases / 4);
}

TEST_CASE("no placement of a small machine answers sooner than the plan's") {
  RandomCases random(11);
  int compared = 0;
  for (int i = 0; i < 60; ++i) {
    CAPTURE(i);
    Machine machine = random.machine();
    machine.nodes = {{random.whole(24, 200) << 20, 8, 90, 70, {90}}};
    machine.gpus = {small_gpu()};
    machine.gpus[0].memory_bytes = (400 + random.whole(8, 200)) << 20;
    machine.gpus[0].sync_us = random.real(0, 300);
    machine.disks = {small_disk()};
    const ModelShape model = small_model(static_cast<int32_t>(random.whole(1, 4)), 8, 1700);
    PlanRequest request = request_of(random.whole(64, 600));
    request.ram_budget = machine.nodes[0].memory_bytes;
    const Plan plan = make_plan(machine, model, request);
    const CpuRates cpu(machine, "", machine.cpu.cores);
    const CostModel costs(machine, model, cpu, &machine.gpus[0], request.hits);
    const double planned = plan.fits() ? seconds_of(costs, plan.placement, request.work) : HUGE_VAL;
    const auto layers = static_cast<int32_t>(model.layers.size());
    for (int32_t chunk = 64; chunk < 2 * request.work.context; chunk *= 2) {
      const auto size = static_cast<int32_t>(std::min<int64_t>(chunk, request.work.context));
      const ChunkBytes bytes = chunk_bytes(model, request.work, size, cpu.threads());
      for (int32_t on_gpu = 0; on_gpu <= layers; ++on_gpu) {
        for (const bool entries_in_ram : {false, true}) {
          Placement at;
          at.chunk_tokens = size;
          at.gpu_layers = on_gpu;
          at.entries_in_ram = entries_in_ram;
          MemoryMap map =
              map_fixed(model, bytes, at, 1, machine.gpus[0].memory_bytes, *request.ram_budget);
          place_experts(model, map, at);
          const Placement most = at;
          // Any fewer experts in VRAM or RAM than there is room for, too.
          for (at.vram_experts = 0; at.vram_experts <= most.vram_experts; ++at.vram_experts) {
            const int64_t rest = model.expert_count() - at.vram_experts;
            const int64_t ram_most = std::min(rest, most.ram_experts);
            for (at.ram_experts = 0; at.ram_experts <= ram_most; at.ram_experts += 4) {
              at.nvme_experts = rest - at.ram_experts;
              if (!map.fits()) continue;
              ++compared;
              // Two percent are given for a smaller chunk, and two for all rows in VRAM.
              CHECK(planned <= seconds_of(costs, at, request.work) * 1.042);
            }
          }
        }
      }
    }
  }
  CHECK(compared > 1000);
}

TEST_CASE("a larger machine is never planned slower") {
  RandomCases random(13);
  for (int i = 0; i < 200; ++i) {
    CAPTURE(i);
    const Machine machine = random.machine();
    const ModelShape model = random.model();
    PlanRequest request = random.request();
    request.ram_budget.reset();
    const Plan plan = make_plan(machine, model, request);
    if (!plan.fits() || request.work.answer == 0) continue;
    Machine larger = machine;
    larger.nodes[0].memory_bytes += int64_t{256} << 30;
    const Plan better = make_plan(larger, model, request);
    CHECK(better.fits());
    const auto seconds = [&](const Plan& p) {
      const Workload& work = request.work;
      const double counted = std::min(1.0, 8 * static_cast<double>(work.answer) /
                                               std::max(1.0, static_cast<double>(work.prompt)));
      return static_cast<double>(work.answer) * p.predict.decode.total() +
             counted * work.parallel * p.predict.prefill.total();
    };
    CHECK(seconds(better) <= seconds(plan) * 1.021);
  }
}

TEST_CASE("without a GPU decode is bound by memory, and below what the bytes allow") {
  const Machine machine = small_machine();
  const ModelShape model = small_model(3, 64, 4080);
  PlanRequest request = request_of();
  const Plan plan = make_plan(machine, model, request);
  REQUIRE(plan.fits());
  CHECK(plan.nvme.experts == 0);
  CHECK(plan.predict.decode.bottleneck() == Resource::kMemory);
  double bytes = static_cast<double>(model.head[0].bytes);
  for (const LayerShape& layer : model.layers) {
    bytes += static_cast<double>(layer.dense[0].bytes + model.experts_used * layer.expert_bytes);
  }
  CHECK(plan.predict.decode_tok_s < 90e9 / bytes);
  CHECK(plan.predict.decode_tok_s > 0.5 * 90e9 / bytes);
}

TEST_CASE("experts that fit nowhere are read from disk, and without a disk named as a problem") {
  Machine machine = small_machine();
  const ModelShape model = small_model(4, 256, 102000);  // 104 GB of experts beside 64 GiB
  const Plan without = make_plan(machine, model, request_of());
  REQUIRE(without.problems.size() == 1);
  CHECK(without.problems[0].find("hearth profile --disk") != std::string::npos);
  machine.disks = {small_disk()};
  machine.disks[0].rates[0].read_gb_s = machine.disks[0].rates[1].read_gb_s = 1;
  const Plan with = make_plan(machine, model, request_of());
  REQUIRE(with.fits());
  CHECK(with.nvme.experts > 0);
  CHECK(with.predict.memory_hit_rate < 1);
  CHECK(with.predict.decode.seconds[static_cast<int>(Resource::kDisk)] > 0);
}

TEST_CASE("a GPU takes the dense part and as many experts as fit, and links or cores the rest") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  const ModelShape model = small_model(12, 256, 17000);
  const Plan plan = make_plan(machine, model, request_of());
  REQUIRE(plan.fits());
  CHECK(plan.placement.gpu_layers == 12);
  CHECK(plan.vram.experts > 0);
  CHECK(plan.ram.experts > 0);
  const Plan alone = make_plan(small_machine(), model, request_of());
  CHECK(plan.predict.decode_tok_s > 1.5 * alone.predict.decode_tok_s);
}

TEST_CASE("VRAM that a person gives is used where it suffices, other VRAM where it helps") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  machine.cpu.loop_us = 0.5;  // so little that kernels' starts cost more
  const ModelShape model = small_model(2, 4, 17);
  PlanRequest request = request_of();
  request.work.prompt = 0;
  request.for_engine = true;
  CHECK_FALSE(make_plan(machine, model, request).placement.uses_gpu());
  request.gpu_budget = machine.gpus[0].memory_bytes;
  CHECK(make_plan(machine, model, request).placement.gpu_layers == 2);
  request.gpu_budget = 1 << 20;
  const Plan plan = make_plan(machine, model, request);
  CHECK(plan.fits());
  CHECK_FALSE(plan.placement.uses_gpu());
}

TEST_CASE("a part of the layers goes to a GPU that has no room for all, where that pays") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  const ModelShape model = small_model(12, 16, 170);
  PlanRequest request = request_of();
  request.for_engine = true;
  request.chunk_tokens = 64;
  const Plan whole = make_plan(machine, model, request);
  REQUIRE(whole.placement.gpu_layers == 12);
  request.gpu_budget = whole.vram.used - model.routed_bytes() - (10 << 20);
  const Plan part = make_plan(machine, model, request);
  REQUIRE(part.fits());
  CHECK(part.placement.gpu_layers > 0);
  CHECK(part.placement.gpu_layers < 12);
  CHECK_FALSE(part.placement.entries_in_ram);
  CHECK(part.predict.decode_tok_s < whole.predict.decode_tok_s);
  request.use_gpu = false;
  const Plan none = make_plan(machine, model, request);
  CHECK(part.predict.decode_tok_s > none.predict.decode_tok_s);
  CHECK(std::ranges::any_of(part.why, [&](const std::string& line) {
    return line.find("computes the first") != std::string::npos;
  }));
  // Both sides take scratch of the host.
  const Workload& work = request.work;
  const int32_t size = part.placement.chunk_tokens;
  const ChunkBytes chunk = chunk_bytes(model, work, size, part.threads);
  const auto scratch = [&](int32_t gpu_layers) {
    const Placement at{.chunk_tokens = size, .gpu_layers = gpu_layers};
    return map_fixed(model, chunk, at, 1, 0, 0).ram.scratch;
  };
  CHECK(scratch(0) == chunk.scratch);
  CHECK(scratch(12) == chunk.beside_gpu[12]);
  CHECK(scratch(part.placement.gpu_layers) ==
        chunk.scratch + chunk.beside_gpu[part.placement.gpu_layers]);
}

TEST_CASE("what would help: memory where experts are on disk, VRAM where they are in RAM") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  machine.disks = {small_disk()};
  machine.disks[0].rates[0].read_gb_s = machine.disks[0].rates[1].read_gb_s = 1;
  const ModelShape model = small_model(4, 256, 102000);
  const PlanRequest request = request_of();
  const Plan plan = make_plan(machine, model, request);
  REQUIRE(plan.nvme.experts > 0);
  const std::vector<Upgrade> upgrades = find_upgrades(machine, model, request, plan);
  REQUIRE(!upgrades.empty());
  CHECK(upgrades.front().change == "+64 GiB RAM");
  CHECK(upgrades.front().decode_tok_s > 1.5 * plan.predict.decode_tok_s);
}

TEST_CASE("experts are spread evenly, over the layers on the GPU first") {
  const ModelShape model = small_model(4, 16);
  Placement at;
  at.gpu_layers = 2;
  at.vram_experts = 11;
  at.ram_experts = 22;
  at.nvme_experts = 31;
  const std::vector<LayerPlan> layers = spread_experts(model, at);
  int64_t vram = 0, ram = 0;
  for (const LayerPlan& layer : layers) {
    vram += layer.vram_experts;
    ram += layer.ram_experts;
    CHECK(layer.vram_experts + layer.ram_experts >= 8);
    CHECK(layer.vram_experts + layer.ram_experts <= 9);
  }
  CHECK(vram == 11);
  CHECK(ram == 22);
  CHECK(layers[0].vram_experts == 0);
  CHECK(layers[3].vram_experts >= 5);
}

TEST_CASE("where a hashed layer's table tells which experts are likely used, these come first") {
  Machine machine = small_machine();
  machine.disks = {small_disk()};
  ModelShape model = small_model(4, 256, 102000);
  const Plan without = make_plan(machine, model, request_of());
  REQUIRE(without.divides_experts());
  CHECK(without.layers[0].order.empty());
  model.layers[0].likely_use.assign(256, 1);
  model.layers[0].likely_use[7] = 2;
  model.layers[0].likely_use[200] = 3;
  const Plan plan = make_plan(machine, model, request_of());
  const std::vector<int32_t>& order = plan.layers[0].order;
  REQUIRE(order.size() == 256);
  CHECK(std::vector(order.begin(), order.begin() + 4) == std::vector<int32_t>{200, 7, 0, 1});
  for (int i = 0; i < 4; ++i) {
    CAPTURE(i);
    CHECK(plan.layers[i].ram_experts == without.layers[i].ram_experts);
    if (i > 0) CHECK(plan.layers[i].order.empty());
  }
  CHECK(plan.hash() != without.hash());
  CHECK(plan.predict.decode_tok_s == without.predict.decode_tok_s);
  CHECK(std::ranges::any_of(plan.why, [](const std::string& line) {
    return line.find("in 1 of 4 layers, RAM begins") != std::string::npos;
  }));
}

TEST_CASE(
    "with a recorded text VRAM takes what it picked most, RAM the next, of equals the first") {
  const ModelShape model = small_model(3, 4);
  //                                  a layer on the CPU, two on the GPU
  const std::vector<int64_t> picks = {9, 0, 5, 1, 7, 5, 5, 0, 2, 8, 8, 6};
  Placement at;
  at.gpu_layers = 2;
  at.vram_experts = 5;
  at.ram_experts = 4;
  at.nvme_experts = 3;
  const std::vector<LayerPlan> layers = rank_experts(model, at, picks);
  REQUIRE(layers.size() == 3);
  CHECK(layers[0].order == std::vector<int32_t>{0, 2, 3, 1});
  CHECK(layers[1].order == std::vector<int32_t>{0, 1, 2, 3});
  CHECK(layers[2].order == std::vector<int32_t>{1, 2, 3, 0});
  const auto counts = [&](int i) {
    const LayerPlan& layer = layers[i];
    return std::vector<int32_t>{layer.vram_experts, layer.ram_experts, layer.nvme_experts};
  };
  CHECK(counts(0) == std::vector<int32_t>{0, 2, 2});  // 9, 5
  CHECK(counts(1) == std::vector<int32_t>{2, 1, 1});  // 7, 5; then the other 5
  CHECK(counts(2) == std::vector<int32_t>{3, 1, 0});  // 8, 8, 6; then 2
  CHECK_FALSE(layers[0].dense_in_vram);
  CHECK(layers[1].dense_in_vram);
}

TEST_CASE("a recorded text sets hit rates and places, and is refused where it isn't the model's") {
  Machine machine = small_machine();
  machine.disks = {small_disk()};
  const ModelShape model = small_model(4, 256, 102000);
  PlanRequest request = request_of();
  const Plan without = make_plan(machine, model, request);
  const auto says = [](const Plan& plan, const char* part) {
    return std::ranges::any_of(
        plan.why, [&](const std::string& line) { return line.find(part) != std::string::npos; });
  };
  CHECK(says(without, "(--trace)"));
  RecordedUse recorded;
  recorded.source = "a.trace";
  recorded.shape = {4, 256, 4};
  recorded.tokens = 77;
  recorded.picks.assign(4 * 256, 1);
  recorded.picks[3 * 256 + 255] = 2;
  recorded.hits = HitCurve(std::vector<HitPoint>{{0.5, {0.9, 0.95, 0.99}}});
  request.recorded = recorded;
  const Plan plan = make_plan(machine, model, request);
  CHECK(says(plan, "77 tokens recorded in a.trace"));
  CHECK(plan.layers[3].order.front() == 255);
  CHECK(plan.placement == without.placement);
  CHECK(plan.hash() != without.hash());
  const double held = static_cast<double>(plan.ram.experts) / (4 * 256);
  CHECK(plan.predict.memory_hit_rate == doctest::Approx(recorded.hits.at(held).likely));
  request.recorded->shape = {4, 256, 6};
  CHECK_THROWS_WITH_AS(
      make_plan(machine, model, request),
      doctest::Contains(
          "a.trace: has 4 layers of 256 experts, 6 used; small model has 4 of 256, 4"),
      Error);
  // Where all lie in one place there is nothing to say.
  CHECK_FALSE(says(make_plan(machine, small_model(), request_of()), "--trace"));
}

TEST_CASE("threads are spread over the nodes as evenly as their cores allow, one a core") {
  const auto spread = [](const std::vector<int32_t>& cores, int32_t threads) {
    std::vector<MemoryNode> nodes(cores.size());
    for (size_t i = 0; i < cores.size(); ++i) nodes[i].cores = cores[i];
    return spread_threads(nodes, threads);
  };
  using Threads = std::vector<int32_t>;
  CHECK(spread({8}, 8) == Threads{});
  CHECK(spread({8, 8}, 16) == Threads{8, 8});
  CHECK(spread({8, 8}, 17) == Threads{});
  CHECK(spread({8, 8}, 5) == Threads{3, 2});
  CHECK(spread({8, 8}, 1) == Threads{1, 0});
  CHECK(spread({2, 8, 6}, 12) == Threads{2, 5, 5});
  CHECK(spread({8, 0, 8}, 6) == Threads{3, 0, 3});
  CHECK(spread({0, 8}, 6) == Threads{});
  Machine machine = small_machine();
  machine.nodes = {{int64_t{32} << 30, 4, 90, 70, {90, 40}},
                   {int64_t{32} << 30, 4, 90, 70, {40, 90}}};
  const Plan plan = make_plan(machine, small_model(), request_of());
  CHECK(plan.node_threads == Threads{4, 4});
  CHECK(plan.shares().text() == "8 threads, 4 + 4 on the NUMA nodes");
  CHECK(make_plan(small_machine(), small_model(), request_of()).shares().text() == "8 threads");
  CHECK(make_plan(small_machine(), small_model(), request_of()).hash() != plan.hash());
}

TEST_CASE("experts in VRAM are held by the layers on the GPU alone") {
  const ModelShape model = small_model(4, 16);
  Placement at;
  at.gpu_layers = 1;
  at.vram_experts = 16;
  at.ram_experts = 24;
  at.nvme_experts = 24;
  const HeldShares concentrated = held_shares(model, at);
  CHECK(concentrated.vram == doctest::Approx(1));
  CHECK(concentrated.gpu_layers == doctest::Approx(1));
  CHECK(concentrated.cpu_layers == doctest::Approx(0.5));  // 24 of the other 48
  at.gpu_layers = 4;
  const HeldShares even = held_shares(model, at);
  CHECK(even.vram == doctest::Approx(0.25));
  CHECK(even.gpu_layers == doctest::Approx(40.0 / 64));
  at = {.ram_experts = 32, .nvme_experts = 32};
  CHECK(held_shares(model, at).vram == 0);
  CHECK(held_shares(model, at).cpu_layers == doctest::Approx(0.5));
}

TEST_CASE("prompts are read in the chunks that are best for them, however long the answers are") {
  RandomCases random(29);
  int compared = 0;
  for (int i = 0; i < 100; ++i) {
    CAPTURE(i);
    const Machine machine = random.machine();
    const ModelShape model = random.model();
    PlanRequest request = random.request();
    request.work.prompt = std::max<int64_t>(request.work.context / 2, 1);
    request.work.answer = 100000;
    const Plan plan = make_plan(machine, model, request);
    if (!plan.fits()) continue;
    for (int32_t chunk = 64; chunk < 2 * request.work.context && chunk <= 16384; chunk *= 2) {
      request.chunk_tokens = static_cast<int32_t>(std::min<int64_t>(chunk, request.work.context));
      const Plan other = make_plan(machine, model, request);
      Placement same = other.placement;
      same.chunk_tokens = plan.placement.chunk_tokens;
      if (!other.fits() || !(same == plan.placement)) continue;
      ++compared;
      CHECK(plan.predict.prefill.total() <= other.predict.prefill.total() * 1.025);
    }
  }
  CHECK(compared > 50);
}

TEST_CASE("the hash is of decisions, not of predictions") {
  Machine machine = small_machine();
  const ModelShape model = small_model();
  const Plan plan = make_plan(machine, model, request_of());
  machine.cpu.loop_us += 1e-3;
  const Plan slower = make_plan(machine, model, request_of());
  CHECK(slower.hash() == plan.hash());
  CHECK(slower.predict.decode_tok_s < plan.predict.decode_tok_s);
  CHECK(make_plan(machine, model, request_of(4095)).hash() != plan.hash());
}

TEST_CASE("a profile without rates of the kernels asked for is an error") {
  PlanRequest request = request_of();
  request.isa = "amx";
  CHECK_THROWS_WITH_AS(make_plan(small_machine(), small_model(), request),
                       doctest::Contains("no rates of the amx kernels"), Error);
}

}  // namespace hearth
