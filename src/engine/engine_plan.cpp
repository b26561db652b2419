#include "engine/engine_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "engine/planned_machine.h"
#include "model/device/needs.h"
#include "model/shape.h"
#include "model/weights.h"
#include "offload/machine/memory.h"
#include "offload/machine/team.h"
#include "offload/machine/topology.h"
#include "offload/plan/cpu_rates.h"
#include "offload/plan/memory_map.h"
#include "offload/plan/planner.h"

namespace hearth {
namespace {

constexpr int64_t kAnswerTokens = 512;
// Of a plan that is replayed, as the options of commands have them.
constexpr int32_t kThreadsMax = 1024, kChunkTokensMax = 65536, kSessionsMax = 64;

// Of an expert of a prompt: past this the cores' rate hardly grows.
constexpr double kManyTokens = 128;
// What sending the first expert puts into a stream: tables, three matrices, tiles, and the kernels
// of gate and up, of rounding and of down.
constexpr double kLaunchesToSend = 8;

const char* kv_name(KvType kv) { return kv == KvType::kF32 ? "f32" : "bf16"; }

PlanRequest request_of(const EngineOptions& options, const ModelConfig& config) {
  PlanRequest request;
  const int64_t context = choose_context(options.context, config);
  request.work = {context, context, context, kAnswerTokens, options.sessions};
  request.isa = kernels_for(options).name;
  request.threads = choose_threads(options.threads);
  request.kv = kv_name(options.kv);
  request.for_engine = true;
  request.stored = true;
  request.gpu_budget = options.gpu_budget;
  request.kv_budget = options.kv_budget;
  request.chunk_tokens = options.chunk_tokens;
  request.ram_budget = options.ram_budget;
  request.free_ram = free_ram_budget();
  request.recorded = options.recorded;
  return request;
}

// Whether each layer's experts have their places: in VRAM only those of layers that lie there.
bool places_all(const Plan& plan, const ModelShape& shape) {
  const auto layers = std::ssize(plan.layers);
  int64_t number = 0;
  return std::ranges::all_of(plan.layers, [&](const LayerPlan& layer) {
    const int32_t counts[] = {layer.vram_experts, layer.ram_experts, layer.nvme_experts};
    return std::ranges::all_of(counts, [&](int32_t n) { return n >= 0 && n <= shape.experts; }) &&
           counts[0] + counts[1] + counts[2] == shape.experts &&
           (plan.placement.on_gpu(number++, layers) || counts[0] == 0) &&
           (layer.order.empty() || std::ssize(layer.order) == shape.experts);
  });
}

// Whether the bytes it names are those that following it takes here.
void check_bytes(const Plan& plan, const ModelShape& shape, Problems& problems) {
  const ChunkBytes chunk = chunk_bytes(shape, plan.work, plan.placement.chunk_tokens, plan.threads);
  Placement placement = plan.placement;
  MemoryMap map =
      map_fixed(shape, chunk, placement, plan.work.parallel, plan.vram.budget, plan.ram.budget);
  place_experts(shape, map, placement);
  add_experts(shape, plan.layers, map);
  if (map.ram.kv + map.vram.kv == plan.kv_bytes &&
      map.ram.scratch + map.vram.scratch == plan.scratch_bytes && map.ram.used == plan.ram.used &&
      map.vram.used == plan.vram.used && map.ram.experts == plan.ram.experts &&
      map.vram.experts == plan.vram.experts && map.nvme.experts == plan.nvme.experts &&
      placement.ram_experts == plan.placement.ram_experts)
    return;
  problems.add("its bytes aren't those that this model and command take");
}

// Of a plan that places layers on a GPU.
void check_gpu(const Plan& plan, const EngineOptions& options, const ModelShape& shape,
               const Device* device, Problems& problems) {
  if (device == nullptr) {
    problems.add("it places layers on a GPU, and none is used here");
    return;
  }
  if (plan.placement.gpu_layers < 1 || plan.placement.gpu_layers > std::ssize(shape.layers)) {
    problems.add(fmt::format("it places {} of {} layers on a GPU", plan.placement.gpu_layers,
                             shape.layers.size()));
  }
  const int64_t available = options.gpu_budget.value_or(gpu_memory_bytes(*device));
  if (plan.vram.used > available) {
    problems.add(
        fmt::format("it takes {} bytes of VRAM, {} are available", plan.vram.used, available));
  }
}

// A plan says how much it takes; what it was made for must be what is here.
void check_replay(const Plan& plan, const EngineOptions& options, const ModelShape& shape,
                  const Device* device) {
  Problems problems(options.plan_name.empty() ? "--plan" : "--plan " + options.plan_name);
  auto same = [&](const char* what, const auto& planned, const auto& here) {
    if (planned != here)
      problems.add(fmt::format("its {} is {}, here it is {}", what, planned, here));
  };
  same("model", plan.model, shape.name);
  same("size of all weights", plan.weight_bytes, shape.weight_bytes());
  same("number of layers", std::ssize(plan.layers), std::ssize(shape.layers));
  same("cache format", plan.kv, std::string(kv_name(options.kv)));
  same("instruction set", plan.isa, std::string(kernels_for(options).name));
  if (options.threads != 0) same("number of threads", plan.threads, options.threads);
  if (!plan.node_threads.empty()) {
    const Machine here = Topology::of_this_machine().describe();
    same("number of threads on each NUMA node", plan.node_threads,
         spread_threads(here.nodes, plan.threads));
  }
  if (plan.threads > kThreadsMax || plan.placement.chunk_tokens > kChunkTokensMax ||
      plan.work.parallel > kSessionsMax) {
    problems.add(
        fmt::format("it has {} threads, {} tokens at a time and {} sessions, of which {}, "
                    "{} and {} are possible",
                    plan.threads, plan.placement.chunk_tokens, plan.work.parallel, kThreadsMax,
                    kChunkTokensMax, kSessionsMax));
  }
  if (options.context != 0 && plan.work.context != options.context) {
    problems.add(fmt::format("its context is {}, here it is {}: plan with --ctx {}",
                             plan.work.context, options.context, options.context));
  }
  if (plan.work.context > shape.context) {
    problems.add(fmt::format("its context of {} is more than the model's {}", plan.work.context,
                             shape.context));
  }
  if (plan.placement.gpu_layers > 0 || plan.vram.used > 0) {
    check_gpu(plan, options, shape, device, problems);
  }
  if (options.sessions > plan.work.parallel) {
    problems.add(
        fmt::format("it is for {} sessions, {} are wanted", plan.work.parallel, options.sessions));
  }
  if (plan.ram.used > plan.ram.budget || plan.vram.used > plan.vram.budget ||
      plan.placement.ram_experts + plan.placement.vram_experts < 1) {
    problems.add("it doesn't fit the budget it was made for");
  }
  const int64_t available = options.ram_budget.value_or(available_memory_bytes());
  if (plan.ram.used > available) {
    problems.add(
        fmt::format("it takes {} bytes of memory, {} are available", plan.ram.used, available));
  }
  const int64_t kv_over =
      kv_over_budget({plan.vram, plan.ram, plan.nvme}, plan.placement, options.kv_budget);
  if (kv_over > 0) {
    problems.add(fmt::format("its KV cache is {} bytes larger than --kv-budget", kv_over));
  }
  constexpr const char* kAdvice =
      "Make a plan for this machine and model: hearth plan MODEL --json";
  problems.throw_if_any(kAdvice);
  if (!places_all(plan, shape)) {
    problems.add(fmt::format("it doesn't place the {} experts of each layer", shape.experts));
  }
  problems.throw_if_any(kAdvice);
  check_bytes(plan, shape, problems);
  problems.throw_if_any(kAdvice);
}

}  // namespace

const Kernels& kernels_for(const EngineOptions& options) {
  return choose_kernels(options.isa.empty() && options.plan ? options.plan->isa : options.isa);
}

int64_t free_ram_budget() {
  const int64_t available = available_memory_bytes();
  return available - memory_reserve_bytes(available);
}

Plan plan_for(const EngineOptions& options, const PlannedModel& model, const Device* device) {
  const Kernels& kernels = kernels_for(options);
  const Machine machine = planned_machine(options, device, kernels.name);
  ModelShape shape = shape_of(model.dir, model.config, kernels, options.kv, options.limits);
  if (shape.name.empty()) shape.name = model.source;
  if (device != nullptr) {
    const ModelWeights weights = bind_weights(model.dir, model.config, model.source);
    shape.gpu = gpu_needs(shape, {model.config, weights, device->kernels(), kernels, options.kv,
                                  options.limits, device->page_bytes()});
  }
  if (options.plan) {
    check_replay(*options.plan, options, shape, device);
    return *options.plan;
  }
  PlanRequest request = request_of(options, model.config);
  request.use_gpu = device != nullptr;
  Plan plan = make_plan(machine, shape, request);
  if (!plan.fits() && (options.ram_budget || options.kv_budget)) {
    throw Error(fmt::format("{}", fmt::join(plan.problems, "; ")),
                options.ram_budget ? "--ram-budget" : "--kv-budget", "");
  }
  return plan;
}

LinkRates link_rates(const EngineOptions& options, const Plan& plan, const Device& device,
                     const std::vector<LayerExperts>& layers) {
  const Machine machine = planned_machine(options, &device, plan.isa);
  std::vector<MatrixUse> uses;
  double bytes = 0, weights = 0;
  for (const LayerExperts& layer : layers) {
    for (const Matrix& stack : {layer.stacks.gate, layer.stacks.up, layer.stacks.down}) {
      const int64_t stack_bytes = stack.rows * row_bytes(stack.type, stack.cols);
      uses.push_back({stack.type, stack.rows * stack.cols, stack_bytes});
      bytes += static_cast<double>(stack_bytes);
      weights += static_cast<double>(stack.rows * stack.cols);
    }
  }
  const CpuRates cpu(machine, plan.isa, plan.threads);
  const BoundSeconds seconds = cpu.multiply(uses, kManyTokens);
  const Gpu& gpu = machine.gpus.front();
  const double read_gb_s = bytes / seconds.memory * 1e-9;
  return {gpu.to_gpu_beside_cpu_gb_s, read_gb_s,
          matmul_flops(weights, kManyTokens) / seconds.arithmetic * 1e-9,
          read_gb_s * gpu.cpu_read_beside_link_gb_s / machine.read_gb_s,
          kLaunchesToSend * gpu.launch_us * 1e-6};
}

bool uses_cache(const Plan& plan) { return plan.fits() && plan.nvme.experts > 0; }

std::vector<int32_t> first_in_vram(const Plan& plan, int32_t experts) {
  std::vector<int32_t> order(plan.layers.size() * experts);
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    const auto row = order.begin() + static_cast<ptrdiff_t>(l) * experts;
    std::iota(row, row + experts, 0);
    std::ranges::copy(plan.layers[l].order, row);
  }
  return order;
}

std::vector<int32_t> first_in_cache(const Plan& plan, int32_t experts) {
  std::vector<int32_t> keys;
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    const LayerPlan& layer = plan.layers[l];
    if (layer.order.empty()) continue;
    for (int32_t i = 0; i < layer.ram_experts; ++i) {
      keys.push_back(static_cast<int32_t>(l) * experts + layer.order[layer.vram_experts + i]);
    }
  }
  return keys;
}

std::optional<HeldWeights> held_weights(const Plan& plan) {
  if (!plan.fits()) return std::nullopt;
  const auto layers = static_cast<int32_t>(plan.layers.size());
  return HeldWeights{
      .dense_layers = plan.placement.uses_gpu() ? layers - plan.placement.gpu_layers : kAllLayers,
      .experts = plan.nvme.experts == 0 && plan.ram.experts > 0};
}

}  // namespace hearth
