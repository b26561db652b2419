// The plan an engine follows: made from what this machine has, or replayed.
#pragma once

#include <string>

#include "cpu_kernels/kernels.h"
#include "engine/engine.h"
#include "format/tensor_dir.h"
#include "offload/plan/plan.h"

namespace hearth {

// The table that the options name, else the plan's, else the fastest. Throws a usage Error.
const Kernels& kernels_for(const EngineOptions& options);

// Memory that weights and caches may take where nobody says: what is free, less a reserve.
int64_t free_ram_budget();

// Throws Error where a budget that was asked for is too small, or where the plan in the options is
// of another model or asks for what this machine or program hasn't got.
Plan plan_for(const EngineOptions& options, const TensorDir& dir, const ModelConfig& config,
              const std::string& source);

// Where the plan has the weights: all in memory; all but the routed experts, which come through a
// cache; none, where even that doesn't fit and files are read on use.
enum class WeightPlaces { kMemory, kMemoryAndCache, kFiles };
WeightPlaces weight_places(const Plan& plan);

}  // namespace hearth
