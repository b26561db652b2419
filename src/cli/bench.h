// What `hearth bench` measures: prefill and decode speed, and each stage beside what the machine
// can do at best.
//
// Tokens are drawn from a seeded uniform distribution, not sampled: a loop of the model's own
// making would show the caches a locality that real text hasn't.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "offload/machine/gpu/measure_gpu.h"

namespace hearth::cli {

struct BenchWork {
  int64_t prefill = 512;
  int64_t decode = 32;
  int64_t depth = 0;
  int repeats = 3;
  std::vector<int> batches;
};

// The report, whose keys are those of `hearth bench --json`. `gpu` are the peaks of the engine's
// GPU, where it has one.
nlohmann::ordered_json bench(Engine& engine, const BenchWork& work,
                             const std::optional<GpuPeaks>& gpu);

}  // namespace hearth::cli
