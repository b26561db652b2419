#include <doctest/doctest.h>

#include <chrono>
#include <cmath>

#include "base/error.h"
#include "offload/plan/memory_map.h"
#include "plan_case.h"

namespace hearth {
namespace {

using test::RandomCases;
using test::small_disk;
using test::small_gpu;
using test::small_machine;
using test::small_model;

PlanRequest request_of(int64_t context = 4096) {
  PlanRequest request;
  request.work = {.context = context, .depth = context, .prompt = context, .answer = 256};
  return request;
}

double seconds_of(const CostModel& costs, const Placement& placement, const Workload& work) {
  const double answers =
      static_cast<double>(work.answer) * costs.decode_step(placement, work).total();
  const double counted =
      std::min(1.0, 8 * static_cast<double>(work.answer) / static_cast<double>(work.prompt));
  return answers + counted * work.parallel * costs.prompt(placement, work).total();
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
  if (!plan.fits()) {
    for (const std::string& problem : plan.problems)
      CHECK(problem.find("bytes") != std::string::npos);
    return;
  }
  CHECK(plan.vram.used <= plan.vram.budget);
  CHECK(plan.ram.used <= plan.ram.budget);
  if (request.ram_budget) CHECK(plan.ram.budget == *request.ram_budget);
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
  int fitting = 0, with_gpu = 0, with_disk = 0;
  double slowest_ms = 0;
  constexpr int kCases = 2000;
  for (int i = 0; i < kCases; ++i) {
    CAPTURE(i);
    const Machine machine = random.machine();
    const ModelShape model = random.model();
    const PlanRequest request = random.request();
    const auto start = std::chrono::steady_clock::now();
    const Plan plan = make_plan(machine, model, request);
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    slowest_ms = std::max(slowest_ms, taken.count());
    check_whole(machine, model, request, plan);
    fitting += plan.fits();
    with_gpu += plan.vram.experts > 0;
    with_disk += plan.fits() && plan.nvme.experts > 0;
  }
  MESSAGE(fitting << " of " << kCases << " fit, " << with_gpu << " with experts in VRAM, "
                  << with_disk << " with experts on disk; the slowest took " << slowest_ms
                  << " ms");
  // The cases are of every kind.
  CHECK(fitting > kCases / 4);
  CHECK(fitting < kCases * 9 / 10);
  CHECK(with_gpu > kCases / 20);
  CHECK(with_disk > kCases / 20);
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
              // Two percent are given for a smaller chunk.
              CHECK(planned <= seconds_of(costs, at, request.work) * 1.021);
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
  request.all_layers_alike = true;
  CHECK_FALSE(make_plan(machine, model, request).placement.uses_gpu());
  request.gpu_budget = machine.gpus[0].memory_bytes;
  CHECK(make_plan(machine, model, request).placement.gpu_layers == 2);
  request.gpu_budget = 1 << 20;
  const Plan plan = make_plan(machine, model, request);
  CHECK(plan.fits());
  CHECK_FALSE(plan.placement.uses_gpu());
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
