#include <doctest/doctest.h>

#include "offload/plan/memory_map.h"
#include "plan_case.h"

namespace hearth {

using test::rates_of;
using test::request_of;
using test::small_disk;
using test::small_gpu;
using test::small_machine;
using test::small_model;

TEST_CASE(
    "experts that stay in RAM for the CPU alone take the rates of interleaved rows, if known") {
  ModelShape model = small_model(3, 64, 4080);
  for (LayerShape& layer : model.layers) layer.expert[0].type = TensorType::kQ4_K;
  Machine machine = small_machine();
  machine.cpu.isas[0].formats.push_back(rates_of("Q4_K", 40, 200));
  machine.gpus = {small_gpu()};
  machine.disks = {small_disk()};
  Machine knowing = machine;
  knowing.cpu.isas[0].formats.push_back(rates_of("Q4_K interleaved", 80, 400));
  Machine stored_faster = machine;
  stored_faster.cpu.isas[0].formats.back() = rates_of("Q4_K", 80, 400);

  PlanRequest request = request_of();
  const auto predict = [&](const Machine& m) { return make_plan(m, model, request).predict; };
  request.use_gpu = false;
  CHECK(predict(knowing).decode_tok_s == predict(stored_faster).decode_tok_s);
  CHECK(predict(knowing).prefill_tok_s == predict(stored_faster).prefill_tok_s);
  CHECK(predict(knowing).decode_tok_s > 1.2 * predict(machine).decode_tok_s);
  CHECK(predict(knowing).prefill_tok_s > 1.2 * predict(machine).prefill_tok_s);

  const auto split_step = [&](const Machine& m) {
    const CpuRates cpu(m, "", m.cpu.cores);
    const CostModel costs(m, model, cpu, &m.gpus[0], request.hits);
    const Placement split{.chunk_tokens = 64, .gpu_layers = 1, .ram_experts = 192};
    return costs.decode_step(split, request.work).total();
  };
  CHECK(split_step(knowing) < split_step(machine));

  request.ram_budget = model.weight_bytes();  // with caches and scratch too little
  REQUIRE(make_plan(machine, model, request).nvme.experts > 0);
  CHECK(predict(knowing).decode_tok_s == predict(machine).decode_tok_s);
  request.ram_budget.reset();
  request.use_gpu = true;
  request.gpu_budget = int64_t{1} << 30;
  REQUIRE(make_plan(machine, model, request).placement.uses_gpu());
  CHECK(predict(knowing).decode_tok_s == predict(machine).decode_tok_s);
}

TEST_CASE("what crosses from the CPU's layers to the GPU's takes the link once a step") {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  const ModelShape model = small_model(3, 16);
  const CpuRates cpu(machine, "", machine.cpu.cores);
  const PlanRequest request = request_of();
  const CostModel costs(machine, model, cpu, &machine.gpus[0], request.hits);
  machine.gpus[0].to_gpu_gb_s = 1e-3;
  machine.gpus[0].to_gpu_beside_cpu_gb_s = 1e-9;  // no expert does
  const auto link = [&](const Cost& cost) {
    return cost.seconds[static_cast<int>(Resource::kLink)];
  };
  const double logits = 4.0 * model.vocab / (50 * 1e9);  // come back
  const double row = 4.0 * model.streams * model.dim / 1e6;
  for (const int32_t on_gpu : {1, 2, 3}) {
    const Placement at{.chunk_tokens = 64, .gpu_layers = on_gpu, .ram_experts = 48};
    const double crossing = on_gpu == 3 ? 0 : row;
    CHECK(link(costs.decode_step(at, request.work)) == doctest::Approx(crossing + logits));
    CHECK(link(costs.prompt(at, request.work)) == doctest::Approx(4096 * crossing + logits));
    CHECK(link(costs.layer_step(at, request.work, 3 - on_gpu)) == doctest::Approx(crossing));
    CHECK(link(costs.layer_step(at, request.work, 2)) == doctest::Approx(on_gpu == 1 ? row : 0));
  }
}

}  // namespace hearth
