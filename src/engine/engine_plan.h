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

// Whether all weights lie in memory; else those that don't are read from their file on use.
bool holds_all_weights(const Plan& plan);

}  // namespace hearth
