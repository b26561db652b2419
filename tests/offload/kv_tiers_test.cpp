// Where plans put the KV cache.
#include <doctest/doctest.h>

#include <algorithm>

#include "offload/plan/cost_model.h"
#include "offload/plan/memory_map.h"
#include "offload/plan/planner.h"
#include "plan_case.h"

using namespace hearth;
using namespace hearth::test;

TEST_CASE("rows in RAM are those that tokens choose from, and are read over the link") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  const ModelShape model = small_model(3);  // a layer without compressed rows, CSA, HCA
  const PlanRequest request = request_of(1 << 20);
  const ChunkBytes chunk = chunk_bytes(model, request.work, 64, 8);
  Placement at;
  at.chunk_tokens = 64;
  at.gpu_layers = 3;
  const auto map = [&](bool entries_in_ram) {
    at.entries_in_ram = entries_in_ram;
    return map_fixed(model, chunk, at, 1, machine.gpus[0].memory_bytes, int64_t{64} << 30);
  };
  const MemoryMap in_vram = map(false), in_ram = map(true);
  CHECK(in_vram.ram.kv == 0);
  CHECK(in_ram.ram.kv == chunk.kv[1].entries);
  CHECK(in_ram.vram.kv == in_vram.vram.kv - chunk.kv[1].entries);

  // Experts of a MiB lie where index keys, and the rows in VRAM, are yet to be written.
  const int64_t keys = chunk.kv[1].index, rows_of_hca = chunk.kv[2].entries;
  CHECK(lent_experts(model, chunk, at, 1) == (keys + rows_of_hca) >> 20);
  at.entries_in_ram = false;
  at.vram_experts = model.expert_count() - 70;
  CHECK(lent_experts(model, chunk, at, 1) == 70);
  at.vram_experts = 0;
  at.gpu_layers = 2;
  CHECK(lent_experts(model, chunk, at, 1) ==
        std::min<int64_t>((keys + chunk.kv[1].entries + rows_of_hca) >> 20, 2 * model.experts));
  at.gpu_layers = 3;
  at.entries_in_ram = true;

  const CpuRates cpu(machine, "", 8);
  const CostModel costs(machine, model, cpu, &machine.gpus[0], request.hits);
  const auto link_seconds = [&](const Workload& work, bool prompt) {
    Placement with = at, without = at;
    without.entries_in_ram = false;
    with.vram_experts = without.vram_experts = model.expert_count();
    const auto seconds = [&](const Placement& place) {
      const Cost cost = prompt ? costs.prompt(place, work) : costs.decode_step(place, work);
      return cost.seconds[static_cast<int>(Resource::kLink)];
    };
    return seconds(with) - seconds(without);
  };
  // A token reads the 512 rows of 256 bytes that it chose; a chunk of 64 tokens at most all rows,
  // here those of 128 tokens on average.
  CHECK(link_seconds(request.work, false) == doctest::Approx(512 * 256 / 50e9));
  Workload prompt = request.work;
  prompt.prompt = 256;
  const double rows = (64 + 128 + 192 + 256) / 4.0;
  CHECK(link_seconds(prompt, true) < rows * 256 / 50e9 * 1.01);
  CHECK(link_seconds(prompt, true) > rows * 256 / 50e9 * 0.5);
}

TEST_CASE("a budget for the KV cache in VRAM leaves in RAM what may lie there, and no more") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  const ModelShape model = small_model(3);
  PlanRequest request = request_of(1 << 20);
  const Plan free = make_plan(machine, model, request);
  REQUIRE(free.placement.gpu_layers == 3);
  REQUIRE_FALSE(free.placement.entries_in_ram);

  request.kv_budget = free.vram.kv;
  CHECK(make_plan(machine, model, request).hash() == free.hash());
  request.kv_budget = free.vram.kv / 2;
  const Plan spilled = make_plan(machine, model, request);
  CHECK(spilled.fits());
  CHECK(spilled.placement.entries_in_ram);
  CHECK(spilled.vram.kv <= *request.kv_budget);
  CHECK(spilled.ram.kv > 0);
}

TEST_CASE("a KV cache that no placement brings within its budget is a problem with its bytes") {
  PlanRequest request = request_of(1 << 20);
  request.kv_budget = 1000;
  const Plan plan = make_plan(small_machine(), small_model(3), request);
  CHECK_FALSE(plan.fits());
  REQUIRE(plan.problems.size() == 1);
  CHECK(plan.problems[0].find(std::to_string(plan.ram.kv - 1000) + " bytes") != std::string::npos);
  CHECK(plan.problems[0].find("--kv-budget") != std::string::npos);
}
