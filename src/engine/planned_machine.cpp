#include "engine/planned_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "offload/machine/assumed_rates.h"
#include "offload/machine/describe.h"
#include "offload/plan/memory_map.h"

namespace hearth {
namespace {

constexpr char kMeasureThisOne[] = "Measure this machine: hearth profile --out FILE";

Gpu gpu_of(const Device& device) {
  Gpu gpu;
  gpu.name = device.name();
  gpu.memory_bytes = gpu_memory_bytes(device);
  gpu.processors = device.cores().processors;
  gpu.clock_ghz = device.cores().clock_ghz;
  return gpu;
}

void check_is_here(const Machine& profile, const Machine& here) {
  if (profile.cpu.name == here.cpu.name && profile.cpu.cores == here.cpu.cores) return;
  throw Error(fmt::format("is of {} cores of {}, here are {} of {}", profile.cpu.cores,
                          profile.cpu.name, here.cpu.cores, here.cpu.name),
              profile.name, kMeasureThisOne);
}

// The device's rates, with the memory that is free now.
Gpu measured_gpu(const Machine& profile, const Device& device) {
  const auto known = std::ranges::find(profile.gpus, device.name(), &Gpu::name);
  if (known == profile.gpus.end()) {
    throw Error(fmt::format("has no rates of the GPU, {}", device.name()), profile.name,
                kMeasureThisOne);
  }
  Gpu gpu = *known;
  gpu.memory_bytes = gpu_memory_bytes(device);
  return gpu;
}

}  // namespace

int64_t gpu_memory_bytes(const Device& device) {
  return device.memory().free_bytes + kGpuContextBytes;
}

Machine planned_machine(const EngineOptions& options, const Device* device,
                        const std::string& isa) {
  Machine assumed = describe_machine();
  if (device != nullptr) assumed.gpus = {gpu_of(*device)};
  assume_rates(assumed, isa);
  if (!options.machine) return assumed;
  Machine machine = *options.machine;
  check_is_here(machine, assumed);
  machine.gpus.clear();
  if (device != nullptr) machine.gpus = {measured_gpu(*options.machine, *device)};
  if (machine.disks.empty()) machine.disks = std::move(assumed.disks);
  return machine;
}

}  // namespace hearth
