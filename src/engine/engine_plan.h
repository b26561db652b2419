// The plan an engine follows: made from what this machine has, or replayed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cpu_kernels/kernels.h"
#include "device/device.h"
#include "engine/engine.h"
#include "format/tensor_dir.h"
#include "model/device/link_split.h"
#include "model/weights.h"
#include "offload/plan/plan.h"
#include "offload/store/weight_memory.h"

namespace hearth {

// The table that the options name, else the plan's, else the fastest. Throws a usage Error.
const Kernels& kernels_for(const EngineOptions& options);

// Memory that weights and caches may take where nobody says: what is free, less a reserve.
int64_t free_ram_budget();

struct PlannedModel {
  const TensorDir& dir;
  const ModelConfig& config;
  const std::string& source;
};

// `device` null: without a GPU. Throws Error where a budget that was asked for is too small, or
// where the plan in the options is of another model or asks for what this machine or program hasn't
// got.
Plan plan_for(const EngineOptions& options, const PlannedModel& model, const Device* device);

// What it costs to have experts of these stacks computed on either side of the link, by the rates
// that plans are made with.
LinkRates link_rates(const EngineOptions& options, const Plan& plan, const Device& device,
                     const std::vector<LayerExperts>& layers);

// Whether the plan has routed experts come from files through a cache.
bool uses_cache(const Plan& plan);
// Each layer's experts in the order in which VRAM takes them, [layers * experts].
std::vector<int32_t> first_in_vram(const Plan& plan, int32_t experts);
// What a cache holds at first, as keys layer * experts + expert: nothing of layers of whose experts
// the plan has no order.
std::vector<int32_t> first_in_cache(const Plan& plan, int32_t experts);
// Which weights the plan has in memory of the host; nothing where it doesn't fit, and files are
// read on use.
std::optional<HeldWeights> held_weights(const Plan& plan);

}  // namespace hearth
