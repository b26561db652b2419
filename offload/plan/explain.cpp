#include "offload/plan/explain.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "offload/plan/cost_model.h"

namespace hearth {
namespace {

using Lines = std::vector<std::string>;

// `budget` as a person gave it, with its option, of what the machine has.
std::string advice(const PlanRequest& request, std::optional<int64_t> budget, int64_t has,
                   const char* option, const char* more) {
  return fmt::format("A smaller context (--ctx){} or {} would help",
                     request.work.parallel > 1 ? ", fewer sessions (--parallel)" : "",
                     budget && *budget < has ? fmt::format("a larger {}", option) : more);
}

void add_lack(const char* name, const TierPlan& tier, const std::string& more,
              const std::string& advice, Lines& problems) {
  if (tier.used <= tier.budget) return;
  problems.push_back(fmt::format(
      "{} lacks {} ({} bytes): {} of weights, {} of KV cache and {} of scratch{} don't fit {}. {}",
      name, binary_size(tier.used - tier.budget), tier.used - tier.budget,
      binary_size(tier.weights), binary_size(tier.kv), binary_size(tier.scratch), more,
      binary_size(tier.budget), advice));
}

void add_disk_lack(const PlanCauses& causes, const Plan& plan, Lines& problems) {
  if (plan.nvme.experts == 0 || causes.has_disk) return;
  const int64_t capacity = disk_capacity_bytes(causes.machine);
  const std::string experts =
      fmt::format("{} of routed experts ({} bytes) have no place in memory, and",
                  binary_size(plan.nvme.used), plan.nvme.used);
  problems.push_back(
      disk_read_gb_s(causes.machine) <= 0
          ? fmt::format("{} the profile knows no disk. Measure one: hearth profile --disk FOLDER",
                        experts)
          : fmt::format("{} the whole model takes {} of a disk, where {} are. A larger disk would "
                        "help",
                        experts, binary_size(plan.weight_bytes), binary_size(capacity)));
}

void add_kv_lack(const PlanCauses& causes, const Plan& plan, Lines& problems) {
  const int64_t over =
      kv_over_budget({plan.vram, plan.ram, plan.nvme}, plan.placement, causes.request.kv_budget);
  if (over == 0) return;
  const bool on_gpu = plan.placement.uses_gpu();
  problems.push_back(fmt::format(
      "the KV cache in {} is {} ({} bytes) larger than --kv-budget {}: {}. A larger --kv-budget{} "
      "a smaller context (--ctx){} would help",
      on_gpu ? "VRAM" : "RAM", binary_size(over), over, binary_size(*causes.request.kv_budget),
      on_gpu ? "only the compressed rows that a token reads a few of can lie in RAM"
             : "without a GPU it has no other place",
      plan.work.parallel > 1 ? "," : " or",
      plan.work.parallel > 1 ? " or fewer sessions (--parallel)" : ""));
}

void explain_budgets(const PlanCauses& causes, Lines& why) {
  const PlanRequest& request = causes.request;
  const int64_t memory = causes.machine.memory_bytes();
  if (request.ram_budget && *request.ram_budget > memory) {
    why.push_back(fmt::format("--ram-budget is {}; planned is with the {} that the machine has",
                              binary_size(*request.ram_budget), binary_size(memory)));
  }
  if (causes.gpu != nullptr && request.gpu_budget &&
      *request.gpu_budget > causes.gpu->memory_bytes) {
    why.push_back(fmt::format("--gpu-budget is {}; planned is with the {} that the card has",
                              binary_size(*request.gpu_budget),
                              binary_size(causes.gpu->memory_bytes)));
  }
}

// Which GPU is used, or why none is.
void explain_gpu(const PlanCauses& causes, const Plan& plan, Lines& why) {
  const PlanRequest& request = causes.request;
  const std::vector<Gpu>& gpus = causes.machine.gpus;
  if (causes.gpu == nullptr) {
    if (request.gpu_budget) {
      why.push_back(fmt::format("no GPU is used, whatever --gpu-budget says: {}",
                                gpus.empty()      ? "the machine has none"
                                : request.use_gpu ? "it is 0"
                                                  : "--no-gpu"));
    }
    return;
  }
  if (!plan.placement.uses_gpu()) {
    why.push_back(fmt::format("no GPU is used: {}",
                              causes.gpu_fits
                                  ? "requests are answered sooner without"
                                  : fmt::format("in {} of VRAM no layer has room with its cache "
                                                "and scratch",
                                                binary_size(plan.vram.budget))));
  } else if (gpus.size() > 1) {
    why.push_back(
        fmt::format("of the machine's {} GPUs one is used, {}: the first of those with "
                    "the most memory",
                    gpus.size(), causes.gpu->name));
  }
}

void explain_vram(const PlanCauses& causes, const Plan& plan, Lines& why) {
  const Placement& at = plan.placement;
  if (!at.uses_gpu()) return;
  const size_t layers = causes.model.layers.size();
  why.push_back(
      fmt::format("{} of {} layers have attention, shared experts and index keys in VRAM{}",
                  at.gpu_layers, layers,
                  at.entries_in_ram ? "; the compressed rows that a token reads a few of lie "
                                      "in RAM, pinned, and are read over the link"
                                    : ", with all of their KV cache"));
  if (at.gpu_layers < std::ssize(causes.model.layers)) {
    why.push_back(
        fmt::format("the CPU computes the first {} layers; what they leave of each token crosses "
                    "the link once a step",
                    layers - at.gpu_layers));
  }
  if (at.vram_experts == 0) {
    why.push_back("no routed expert has room in VRAM beside these");
  } else {
    why.push_back(fmt::format("{} of {} routed experts fill the rest of VRAM{}", at.vram_experts,
                              causes.model.expert_count(),
                              plan.fits() ? fmt::format(" and serve about {:.0f} % of the picks",
                                                        100 * plan.predict.vram_hit_rate)
                                          : ""));
  }
  const int64_t lent = lent_experts(causes.model, causes.chunk, at, plan.work.parallel);
  if (lent > 0 && plan.fits()) {
    why.push_back(
        fmt::format("up to {} more lie where cache rows will, until a conversation gets there; "
                    "predictions are without them",
                    lent));
  }
}

// Who computes those experts of the GPU's layers that VRAM lacks.
void explain_misses(const Plan& plan, Lines& why) {
  const Cost &decode = plan.predict.decode, &prefill = plan.predict.prefill;
  if (decode.missed == 0) return;
  why.push_back(fmt::format(
      "of the experts that the GPU's layers miss in VRAM {:.0f} % go there over the link in "
      "decode{}; "
      "the CPU computes the others",
      100 * decode.sent_share(),
      prefill.missed > 0 ? fmt::format(", {:.0f} % in prompts", 100 * prefill.sent_share()) : ""));
}

void explain_ram(const PlanCauses& causes, const Plan& plan, Lines& why) {
  const Placement& at = plan.placement;
  if (at.nvme_experts == 0) {
    why.push_back(fmt::format("{} {} routed experts fit in RAM; no disk is read",
                              at.vram_experts > 0 ? "the other" : "all", at.ram_experts));
    if (plan.ram.expert_room() > 0) {
      why.push_back(
          fmt::format("{} of RAM is room for the experts in VRAM: they change places "
                      "with others as the text wants these",
                      binary_size(plan.ram.expert_room())));
    }
    return;
  }
  why.push_back(fmt::format("{} routed experts fit in RAM, {} {}{}", at.ram_experts,
                            at.nvme_experts, causes.has_disk ? "stay on disk" : "have no place",
                            plan.fits() ? fmt::format(": memory serves about {:.0f} % of the picks",
                                                      100 * plan.predict.memory_hit_rate)
                                        : ""));
}

// Which experts are the ones that lie in VRAM and RAM at first.
std::string explain_first(const ModelShape& model, const PlanRequest& request, const Plan& plan) {
  const bool in_vram = plan.vram.experts > 0;
  const char* places = in_vram ? "VRAM and RAM" : "RAM";
  if (!request.recorded) {
    const auto tables = std::ranges::count_if(
        model.layers, [](const LayerShape& layer) { return !layer.likely_use.empty(); });
    return fmt::format(
        "no recorded routing says which experts are used most (--trace): each layer has as many "
        "in a tier{}{}",
        in_vram ? ", in VRAM at first those of the lowest numbers" : "",
        tables == 0
            ? ""
            : fmt::format("; where token ids choose, in {} of {} layers, {} {} with those "
                          "that the tables name for frequent tokens",
                          tables, model.layers.size(), places, in_vram ? "begin" : "begins"));
  }
  const RecordedUse& recorded = *request.recorded;
  return fmt::format(
      "the experts in {} at first are those that the {} tokens recorded in {} used most; hit rates "
      "are of caches that meet the same tokens",
      places, recorded.tokens, recorded.source);
}

}  // namespace

Lines explain_problems(const PlanCauses& causes, const Plan& plan) {
  const PlanRequest& request = causes.request;
  Lines problems;
  if (causes.gpu != nullptr) {
    add_lack("VRAM", plan.vram, "",
             advice(request, request.gpu_budget, causes.gpu->memory_bytes, "--gpu-budget",
                    "a GPU with more memory"),
             problems);
  }
  // Where not even a token's experts have room, the scratch is theirs and the program's.
  const bool has_slots = plan.placement.ram_experts > 0 || plan.placement.nvme_experts == 0;
  add_lack("RAM", plan.ram,
           has_slots ? ""
                     : fmt::format(" ({} of it the program's own, the rest with room for a token's "
                                   "experts)",
                                   binary_size(program_bytes(causes.model))),
           advice(request, request.ram_budget, causes.machine.memory_bytes(), "--ram-budget",
                  "more memory"),
           problems);
  add_disk_lack(causes, plan, problems);
  add_kv_lack(causes, plan, problems);
  return problems;
}

Lines explain_plan(const PlanCauses& causes, const Plan& plan) {
  Lines why;
  if (!plan.fits())
    why.push_back("the places shown are those that lack least; no speed is predicted of them");
  explain_budgets(causes, why);
  explain_gpu(causes, plan, why);
  explain_vram(causes, plan, why);
  explain_misses(plan, why);
  explain_ram(causes, plan, why);
  if (plan.divides_experts()) {
    why.push_back(explain_first(causes.model, causes.request, plan));
  }
  const Placement& at = plan.placement;
  why.push_back(fmt::format(
      "prompts are read {} at a time: the longer, the fewer times the experts are read, but "
      "{} of scratch are taken for it",
      counted(at.chunk_tokens, "token"),
      binary_size(at.uses_gpu() ? causes.chunk.device_scratch[at.entries_in_ram][at.gpu_layers]
                                : causes.chunk.scratch)));
  for (const std::string& format : CpuRates::unknown_formats(causes.cpu.rates(), causes.model)) {
    why.push_back(fmt::format(
        "the profile has no rate for {} weights on the CPU; its slowest stands in", format));
  }
  return why;
}

}  // namespace hearth
