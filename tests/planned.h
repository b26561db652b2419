// Plans of engines that are not opened: nothing is loaded, so that budgets may be sought in many
// steps.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "engine/engine.h"
#include "engine/engine_plan.h"
#include "format/gguf.h"
#include "model/config.h"

namespace hearth::test {

// The plan that an engine of these options follows. Throws as Engine::open.
inline Plan plan_of(const EngineOptions& options) {
  const std::string source = options.model.string();
  const TensorDir dir = open_gguf(options.model);
  const ModelConfig config = read_config(dir, source);
  const FoundDevice gpu = options.use_gpu ? options.open_gpu() : FoundDevice{};
  return plan_for(options, {dir, config, source}, gpu.device.get());
}

// Slots of the cache that experts come through from the disk; without bound where none do.
inline int64_t slots_of(const Plan& plan) {
  return uses_cache(plan) ? plan.ram.experts : std::numeric_limits<int64_t>::max();
}

}  // namespace hearth::test
