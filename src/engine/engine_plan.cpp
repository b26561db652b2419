#include "engine/engine_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "model/shape.h"
#include "offload/machine/assumed_rates.h"
#include "offload/machine/describe.h"
#include "offload/machine/memory.h"
#include "offload/machine/team.h"
#include "offload/plan/planner.h"

namespace hearth {
namespace {

constexpr int64_t kAnswerTokens = 512;

ModelShape named_shape(const EngineOptions& options, const TensorDir& dir,
                       const ModelConfig& config, const std::string& source) {
  ModelShape shape = shape_of(dir, config, choose_kernels(options.isa), options.kv);
  if (shape.name.empty()) shape.name = source;
  return shape;
}

PlanRequest request_of(const EngineOptions& options, const ModelConfig& config) {
  PlanRequest request;
  const int64_t context = choose_context(options.context, config);
  request.work = {context, context, context, kAnswerTokens, options.sessions};
  request.isa = choose_kernels(options.isa).name;
  request.kv = kv_name(options.kv);
  request.use_gpu = false;
  request.chunk_tokens = options.chunk_tokens;
  const int64_t available = available_memory_bytes();
  request.ram_budget = options.ram_budget.value_or(available - memory_reserve_bytes(available));
  return request;
}

// A plan says how much it takes; what it was made for must be what is here.
void check_replay(const Plan& plan, const EngineOptions& options, const ModelShape& shape) {
  Problems problems("--plan");
  auto same = [&](const char* what, const auto& planned, const auto& here) {
    if (planned != here)
      problems.add(fmt::format("its {} is {}, here it is {}", what, planned, here));
  };
  same("model", plan.model, shape.name);
  same("size of all weights", plan.weight_bytes, shape.weight_bytes());
  same("number of layers", std::ssize(plan.layers), std::ssize(shape.layers));
  same("cache format", plan.kv, std::string(kv_name(options.kv)));
  same("instruction set", plan.isa, std::string(choose_kernels(options.isa).name));
  if (options.context != 0) same("context", plan.work.context, options.context);
  if (plan.work.context > shape.context) {
    problems.add(fmt::format("its context of {} is more than the model's {}", plan.work.context,
                             shape.context));
  }
  if (plan.placement.gpu_layers > 0 || plan.vram.used > 0) {
    problems.add("it places layers on a GPU, which this build doesn't compute on");
  }
  if (options.sessions > plan.work.parallel) {
    problems.add(
        fmt::format("it is for {} sessions, {} are wanted", plan.work.parallel, options.sessions));
  }
  const int64_t available = options.ram_budget.value_or(available_memory_bytes());
  if (plan.ram.used > available) {
    problems.add(
        fmt::format("it takes {} bytes of memory, {} are available", plan.ram.used, available));
  }
  problems.throw_if_any("Make a plan for this machine and model: hearth plan MODEL --json");
}

}  // namespace

const char* kv_name(KvType kv) { return kv == KvType::kF32 ? "f32" : "bf16"; }

Plan plan_for(const EngineOptions& options, const TensorDir& dir, const ModelConfig& config,
              const std::string& source) {
  const ModelShape shape = named_shape(options, dir, config, source);
  if (options.plan) {
    check_replay(*options.plan, options, shape);
    return *options.plan;
  }
  Machine machine = describe_machine();
  const PlanRequest request = request_of(options, config);
  assume_rates(machine, request.isa);
  PlanRequest asked = request;
  asked.threads = choose_threads(options.threads);
  Plan plan = make_plan(machine, shape, asked);
  if (!plan.fits() && options.ram_budget) {
    throw Error(fmt::format("{}", fmt::join(plan.problems, "; ")), "--ram-budget", "");
  }
  return plan;
}

bool holds_all_weights(const Plan& plan) { return plan.fits() && plan.nvme.experts == 0; }

}  // namespace hearth
