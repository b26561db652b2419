// What a plan says of itself.
#include <doctest/doctest.h>

#include <numeric>

#include "offload/plan/memory_map.h"
#include "offload/plan/plan_svg.h"
#include "plan_case.h"

namespace hearth {
namespace {

using test::request_of;
using test::small_disk;
using test::small_gpu;
using test::small_machine;
using test::small_model;

bool has(const std::vector<std::string>& lines, const char* part) {
  return std::ranges::any_of(
      lines, [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

Machine with_gpu() {
  Machine machine = small_machine();
  machine.gpus = {small_gpu()};
  machine.disks = {small_disk()};
  return machine;
}

}  // namespace

TEST_CASE("a plan that doesn't fit names no hit rates, and what makes it fit has speeds") {
  Machine machine = with_gpu();
  const ModelShape model = small_model(4, 256, 17000);
  PlanRequest request = request_of();
  request.ram_budget = 0;
  const Plan plan = make_plan(machine, model, request);
  REQUIRE_FALSE(plan.fits());
  CHECK(has(plan.why, "lack least"));
  CHECK(has(plan.why, "stay on disk"));
  CHECK_FALSE(has(plan.why, "of the picks"));
  machine.disks.clear();
  CHECK(has(make_plan(machine, model, request).why, "have no place"));
  CHECK(has(make_plan(with_gpu(), model, request_of()).why, "of the picks"));
}

TEST_CASE("budgets beyond the machine are planned as what it has, and that is said") {
  const Machine machine = with_gpu();
  PlanRequest request = request_of();
  request.ram_budget = int64_t{2} << 40;
  request.gpu_budget = int64_t{1} << 40;
  const Plan plan = make_plan(machine, small_model(), request);
  CHECK(plan.ram.budget == machine.memory_bytes());
  CHECK(plan.vram.budget == machine.gpus[0].memory_bytes);
  CHECK(has(plan.why, "--ram-budget is 2048.00 GiB; planned is with the 64.00 GiB"));
  CHECK(has(plan.why, "--gpu-budget is 1024.00 GiB; planned is with the 16.00 GiB"));
  // What is free bounds plans that nobody gave a budget.
  request = request_of();
  request.free_ram = int64_t{40} << 30;
  CHECK(make_plan(machine, small_model(), request).ram.budget == *request.free_ram);
}

TEST_CASE("why no GPU is used, or one of several") {
  Machine machine = with_gpu();
  const ModelShape model = small_model(4, 256, 17000);
  PlanRequest request = request_of();
  const auto says = [&](const char* part) {
    return has(make_plan(machine, model, request).why, part);
  };
  CHECK_FALSE(says("GPU is used"));
  request.gpu_budget = 1 << 20;
  CHECK(says("no GPU is used: in 1.0 MiB of VRAM no layer has room"));
  request.gpu_budget = 0;
  CHECK(says("no GPU is used, whatever --gpu-budget says: it is 0"));
  request.gpu_budget = 1 << 30;
  request.use_gpu = false;
  CHECK(says("no GPU is used, whatever --gpu-budget says: --no-gpu"));
  request.use_gpu = true;
  machine.gpus.clear();
  CHECK(says("no GPU is used, whatever --gpu-budget says: the machine has none"));
  request.gpu_budget.reset();
  machine.gpus = {small_gpu(), small_gpu()};
  machine.gpus[0].memory_bytes /= 2;
  machine.gpus[1].name = "large GPU";
  CHECK(says("of the machine's 2 GPUs one is used, large GPU"));
  machine.gpus = {small_gpu()};
  machine.gpus[0].sync_us = 1e6;
  CHECK(says("no GPU is used: requests are answered sooner without"));
}

TEST_CASE("experts stay on a disk that has room for the model, and on no smaller one") {
  Machine machine = small_machine();
  machine.disks = {small_disk()};
  const ModelShape model = small_model(4, 256, 102000);  // 104 GB of experts beside 64 GiB
  REQUIRE(make_plan(machine, model, request_of()).nvme.experts > 0);
  machine.disks[0].capacity_bytes = 1'000'000'000;
  const Plan plan = make_plan(machine, model, request_of());
  REQUIRE(plan.problems.size() == 1);
  CHECK(has(plan.problems, "of a disk, where 953.7 MiB are"));
  PlanRequest stored = request_of();
  stored.stored = true;  // a sparse file, say
  CHECK(make_plan(machine, model, stored).fits());
  machine.disks[0].capacity_bytes = 0;  // not known
  CHECK(make_plan(machine, model, request_of()).fits());
}

TEST_CASE("where experts are at first is said of the tiers that there are") {
  Machine machine = with_gpu();
  const ModelShape model = small_model(4, 256, 102000);
  CHECK(has(make_plan(machine, model, request_of()).why, "lowest numbers"));
  machine.gpus.clear();
  const Plan plan = make_plan(machine, model, request_of());
  CHECK(has(plan.why, "each layer has as many in a tier"));
  CHECK_FALSE(has(plan.why, "VRAM"));
}

TEST_CASE("advice names what the command was given and can have") {
  const ModelShape model = small_model();
  PlanRequest request = request_of();
  request.ram_budget = 1 << 20;
  const auto problems = [&] { return make_plan(small_machine(), model, request).problems; };
  CHECK(has(problems(), "A smaller context (--ctx) or a larger --ram-budget would help"));
  request.work.parallel = 2;
  CHECK(has(problems(), "fewer sessions (--parallel) or a larger --ram-budget"));
  request.ram_budget.reset();
  request.free_ram = 1 << 20;
  CHECK(has(problems(), "fewer sessions (--parallel) or more memory"));
}

TEST_CASE("parts of cache and scratch are their sums, in the layers' own terms") {
  Machine machine = with_gpu();
  machine.gpus[0].memory_bytes = int64_t{4} << 30;
  const ModelShape model = small_model(6, 64, 17000);  // ratios 0, 4, 128, twice
  PlanRequest request = request_of(2048);
  request.work.parallel = 3;
  const auto part = [](const TierPlan& tier, ScratchPart which) {
    return tier.scratch_parts[static_cast<int>(which)];
  };
  for (const std::optional<int64_t> ram : {std::optional<int64_t>(), {int64_t{2} << 30}, {0}}) {
    request.ram_budget = ram;
    const Plan plan = make_plan(machine, model, request);
    for (const TierPlan* tier : {&plan.vram, &plan.ram}) {
      CHECK(std::accumulate(tier->kv_parts.begin(), tier->kv_parts.end(), int64_t{0}) == tier->kv);
      CHECK(std::accumulate(tier->scratch_parts.begin(), tier->scratch_parts.end(), int64_t{0}) ==
            tier->scratch);
    }
    const auto kv = [&](KvPart which) {
      const int i = static_cast<int>(which);
      return plan.vram.kv_parts[i] + plan.ram.kv_parts[i];
    };
    CHECK(kv(KvPart::kWindow) == 3 * 6 * (128 + plan.placement.chunk_tokens) * 256);
    CHECK(kv(KvPart::kCsaRows) == 3 * 2 * (2048 / 4) * 256);
    CHECK(kv(KvPart::kHcaRows) == 3 * 2 * (2048 / 128) * 256);
    CHECK(kv(KvPart::kIndexKeys) == 3 * 2 * (2048 / 4) * 128);
    CHECK(kv(KvPart::kCarried) == 3 * 2 * (4 + 128) * 1024);
    CHECK(part(plan.vram, ScratchPart::kContext) == kGpuContextBytes);
    CHECK(part(plan.ram, ScratchPart::kProgram) == (ram == 0 ? program_bytes(model) : 0));
  }
  request.ram_budget.reset();
  const Plan plan = make_plan(machine, model, request);
  REQUIRE(plan.vram.experts > 0);
  REQUIRE(plan.nvme.experts == 0);
  CHECK(plan.ram.expert_room() == plan.vram.experts * model.layers[0].expert_bytes);
  CHECK(has(plan.why, "is room for the experts in VRAM"));
  CHECK(plan.program_bytes == program_bytes(model));
}

TEST_CASE("what is busy beside the bottleneck is counted, and never longer than it") {
  Machine machine = small_machine();
  machine.disks = {small_disk()};
  machine.disks[0].rates[0].read_gb_s = machine.disks[0].rates[1].read_gb_s = 4;
  const ModelShape model = small_model(4, 256, 102000);
  const Plan plan = make_plan(machine, model, request_of());
  const Cost& decode = plan.predict.decode;
  REQUIRE(decode.bottleneck() == Resource::kDisk);
  CHECK(decode.runner_up() == Resource::kMemory);
  // Each token's experts are read from memory whatever the disk brings meanwhile.
  const double bytes = 4.0 * model.experts_used * static_cast<double>(102000 << 10);
  CHECK(decode.busy(Resource::kMemory) > bytes / 90e9);
  CHECK(decode.seconds[static_cast<int>(Resource::kMemory)] < bytes / 90e9);
  CHECK(decode.beside[static_cast<int>(Resource::kMemory)] <
        decode.seconds[static_cast<int>(Resource::kDisk)]);
  const Plan in_memory = make_plan(machine, small_model(), request_of());
  CHECK(in_memory.predict.decode.beside == std::array<double, kResources>{});
}

TEST_CASE("experts that VRAM lacks go to the CPU or over the link, whichever is faster") {
  Machine machine = with_gpu();
  const ModelShape model = small_model(12, 256, 17000);
  const auto sent = [&] {
    const Plan plan = make_plan(machine, model, request_of());
    REQUIRE(plan.predict.decode.missed > 0);
    CHECK(has(plan.why, "of the experts that the GPU's layers miss in VRAM"));
    CHECK(plan.predict.decode.sent_share() <= 1);
    return plan.predict.decode.sent_share();
  };
  CHECK(sent() > 0);
  machine.gpus[0].to_gpu_gb_s = machine.gpus[0].to_gpu_beside_cpu_gb_s = 1e-3;
  CHECK(sent() < 0.01);
  machine.gpus[0].to_gpu_gb_s = machine.gpus[0].to_gpu_beside_cpu_gb_s = 900;
  CHECK(sent() > 0.9);
}

TEST_CASE("the picture has no gap for tiers that are empty, and marks a budget that is passed") {
  Machine machine = small_machine();
  machine.disks = {small_disk()};
  PlanRequest request = request_of();
  const auto height = [](const std::string& svg) {
    const size_t at = svg.find("height=\"") + 8;
    return std::stod(svg.substr(at));
  };
  const ModelShape model = small_model(4, 256, 102000);
  const std::string two = plan_svg(make_plan(machine, model, request));
  const std::string one = plan_svg(make_plan(machine, small_model(4), request));
  CHECK(height(two) > height(one));
  CHECK(one.find("past the budget") == std::string::npos);
  request.ram_budget = 100 << 20;
  const std::string over = plan_svg(make_plan(machine, model, request));
  CHECK(over.find("past the budget") != std::string::npos);
  CHECK(over.find("budget: 100.0 MiB") != std::string::npos);
}

}  // namespace hearth
