// From a machine, a model and what is to be run to a Plan: a pure function.
//
// It tries every chunk size, every number of layers on the GPU and both places of their compressed
// rows, gives what room is left to routed experts, first in VRAM, then in RAM, and keeps the
// placement that answers the workload's requests soonest: their prompts read, their answers
// written. A request counts with at most eight new tokens of prompt for one of its answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "offload/machine/machine.h"
#include "offload/plan/hit_curve.h"
#include "offload/plan/model_shape.h"
#include "offload/plan/plan.h"
#include "offload/plan/recorded_use.h"

namespace hearth {

struct PlanRequest {
  Workload work;
  std::string isa;      // empty: the best the profile has rates of
  int32_t threads = 0;  // 0: all cores
  std::string kv = "bf16";
  bool use_gpu = true;
  // As an engine follows it: where a budget for the GPU is named and suffices, it takes all layers.
  bool for_engine = false;
  bool stored = false;       // the model's files lie on the machine's disks: they have room
  int32_t chunk_tokens = 0;  // 0: the planner's choice
  // Bytes that a person gives, at most the machine's memory or the card's. Where absent it is what
  // is free now, else the machine's memory less a reserve; and the card's.
  std::optional<int64_t> ram_budget, gpu_budget;
  std::optional<int64_t> free_ram;
  // Bytes of KV cache in the fastest tier: in VRAM where a GPU is used, else in RAM. What of it a
  // GPU may leave in RAM goes there.
  std::optional<int64_t> kv_budget;
  HitCurve hits = HitCurve::of_real_text();
  // Says which experts are in VRAM and RAM at first, and how often they are hit in place of `hits`.
  std::optional<RecordedUse> recorded;

  const HitCurve& hit_curve() const { return recorded ? recorded->hits : hits; }
};

// Memory left to the operating system and other programs.
int64_t memory_reserve_bytes(int64_t memory_bytes);

// Threads on each node, as evenly as its cores allow, one a core at most: [nodes], or nothing where
// fewer than two have cores, there are more threads than cores or more nodes than are told apart.
std::vector<int32_t> spread_threads(const std::vector<MemoryNode>& nodes, int32_t threads);

// The GPU a plan is made for; null where none is to be used.
const Gpu* planned_gpu(const Machine& machine, const PlanRequest& request);

// Of what doesn't fit, `problems` names every byte; the plan then is the nearest to fitting. Throws
// Error where the profile has no rates to predict with or what was recorded is of another model.
Plan make_plan(const Machine& machine, const ModelShape& model, const PlanRequest& request);

// What single changes of the machine would bring, the most helpful first.
std::vector<Upgrade> find_upgrades(const Machine& machine, const ModelShape& model,
                                   const PlanRequest& request, const Plan& plan);

}  // namespace hearth
