// The machine that an engine's plans are made for: this one.
#pragma once

#include <string>

#include "device/device.h"
#include "engine/engine.h"
#include "offload/machine/machine.h"

namespace hearth {

// With the rates of the profile in the options, or assumed ones where there is none. `device` null:
// without a GPU. Throws Error where the profile is of another machine.
Machine planned_machine(const EngineOptions& options, const Device* device, const std::string& isa);

// Memory of a GPU that a program can take, with what it took to open it.
int64_t gpu_memory_bytes(const Device& device);

}  // namespace hearth
