// A plan in words: what has no place in it, and why it is as it is.
#pragma once

#include <string>
#include <vector>

#include "offload/machine/machine.h"
#include "offload/plan/cpu_rates.h"
#include "offload/plan/memory_map.h"
#include "offload/plan/model_shape.h"
#include "offload/plan/plan.h"
#include "offload/plan/planner.h"

namespace hearth {

// What a plan was made from.
struct PlanCauses {
  const Machine& machine;
  const ModelShape& model;
  const PlanRequest& request;
  const CpuRates& cpu;
  const Gpu* gpu;  // the one planned with; null: none
  const ChunkBytes& chunk;
  bool has_disk;  // with room for the model
  bool gpu_fits;  // whether any placement with a layer on it has room
};

// What has no place, with its bytes and what to do; empty where all fits.
std::vector<std::string> explain_problems(const PlanCauses& causes, const Plan& plan);
// The decisions; no rates of a plan that doesn't fit.
std::vector<std::string> explain_plan(const PlanCauses& causes, const Plan& plan);

}  // namespace hearth
