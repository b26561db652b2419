// Engines that plan with a profile's rates.
#include "engine/planned_machine.h"

#include <doctest/doctest.h>

#include "device/fake_device.h"
#include "engine/gpu_engines.h"
#include "offload/machine/assumed_rates.h"
#include "offload/machine/describe.h"
#include "support.h"

using namespace hearth;

namespace {

FoundDevice open_fake() { return {make_fake_device({.memory_bytes = test::kGpuMemory}), ""}; }

// This machine's, with the fake GPU.
Machine profile_of_here(double launch_us) {
  Machine machine = describe_machine();
  const FoundDevice gpu = open_fake();
  machine.gpus = {Gpu{}};
  machine.gpus[0].name = gpu.device->name();
  machine.gpus[0].processors = gpu.device->cores().processors;
  machine.gpus[0].clock_ghz = gpu.device->cores().clock_ghz;
  assume_rates(machine, test::demo_options().isa);
  machine.gpus[0].launch_us = launch_us;
  return machine;
}

}  // namespace

TEST_CASE("the rates of a profile decide what the GPU computes") {
  EngineOptions options = test::demo_options();
  options.open_gpu = open_fake;
  options.machine = profile_of_here(1e6);
  CHECK_FALSE(Engine::open(options)->plan().placement.uses_gpu());
  options.machine = profile_of_here(0);
  for (IsaRates& isa : options.machine->cpu.isas) {
    for (FormatRates& format : isa.formats) format.stream_gb_s = 1e-3;
  }
  CHECK(Engine::open(options)->plan().placement.uses_gpu());
}

TEST_CASE("memory is what is free here, whatever a profile says") {
  EngineOptions options = test::demo_options();
  options.machine = profile_of_here(1);
  options.machine->gpus[0].memory_bytes = 1;
  const FoundDevice gpu = open_fake();
  const Machine machine = planned_machine(options, gpu.device.get(), options.isa);
  CHECK(machine.gpus.at(0).memory_bytes == gpu_memory_bytes(*gpu.device));
  CHECK(planned_machine(options, nullptr, options.isa).gpus.empty());
}

TEST_CASE("a profile of another machine is refused") {
  EngineOptions options = test::demo_options();
  options.machine = profile_of_here(1);
  options.machine->name = "elsewhere";
  options.machine->cpu.cores += 1;
  CHECK(test::error_of([&] { Engine::open(options); }).find("elsewhere") != std::string::npos);
  EngineOptions here = test::demo_options();
  options.plan = Engine::open(here)->plan();
  CHECK(test::error_of([&] { Engine::open(options); }).find("elsewhere") != std::string::npos);
  options.plan.reset();
  options.machine = profile_of_here(1);
  options.machine->gpus[0].name = "another card";
  options.open_gpu = open_fake;
  CHECK(test::error_of([&] { Engine::open(options); }).find("no rates of the GPU") !=
        std::string::npos);
}
