// A GPU's figures in a profile: from the fake device, or from a GPU with --device cuda.
#include "offload/machine/gpu/measure_gpu.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "device/fake_device.h"
#include "offload/a_machine.h"
#include "offload/machine/machine_json.h"
#include "offload/machine/machine_rates.h"
#include "open_device.h"
#include "support.h"

using namespace hearth;

namespace {

constexpr int64_t kKiB = 1 << 10, kMiB = 1 << 20;
// What emulated threads do in time.
constexpr GpuProbe kSmall{.read_bytes = kMiB,
                          .link_bytes = 256 * kKiB,
                          .tile_blocks = 1,
                          .tile_rounds = 1,
                          .launches = 8,
                          .seconds = 1e-4};

struct Cpu2 {
  const Workers workers{2};
  const ProbeMemory memory{workers, Topology("core:2 pu:1"), 8 * kMiB};
  const Kernels& kernels = choose_kernels("");
};

std::vector<double> rates_of(const Gpu& gpu) {
  return {gpu.clock_ghz,
          gpu.read_gb_s,
          gpu.matmul_gflop_s,
          gpu.to_gpu_gb_s,
          gpu.to_host_gb_s,
          gpu.launch_us,
          gpu.to_gpu_beside_cpu_gb_s,
          gpu.sync_us,
          gpu.cpu_read_beside_link_gb_s};
}

}  // namespace

TEST_CASE("every figure of a GPU is measured, and what that took is given back") {
  const bool fake = test::device() == "fake";
  const auto device = fake ? make_fake_device({.memory_bytes = 64 * kMiB}) : open_device(0).device;
  const int64_t free_bytes = device->memory().free_bytes;
  const Cpu2 cpu;
  const Gpu gpu =
      measure_gpu(*device, cpu.kernels, cpu.workers, cpu.memory, fake ? kSmall : GpuProbe());
  // CUDA keeps the code of kernels that ran.
  const int64_t code_bytes = fake ? 0 : 128 * kMiB;
  CHECK(free_bytes - device->memory().free_bytes <= code_bytes);
  CHECK(gpu.name == device->name());
  CHECK(gpu.memory_bytes == free_bytes);
  CHECK(gpu.processors == device->cores().processors);
  CHECK(gpu.clock_ghz == device->cores().clock_ghz);
  CHECK(gpu.node == 0);
  for (const double rate : rates_of(gpu)) {
    CHECK(rate > 0);
    CHECK(std::isfinite(rate));
  }

  // A profile with it is one that others take.
  Machine machine = test::a_machine();
  machine.gpus = {gpu};
  machine.assumed.clear();
  round_rates(machine);
  CHECK(parse_machine(write_machine(machine), "a profile") == machine);
}

TEST_CASE("a GPU whose memory is taken is refused in words, and holds nothing of ours") {
  const Cpu2 cpu;
  const auto device = make_fake_device({.memory_bytes = 4 * kMiB});
  const DeviceBuffer taken = device->allocate(5 * kMiB / 2);
  const int64_t free_bytes = device->memory().free_bytes;
  CHECK_THROWS_WITH_AS(
      measure_gpu(*device, cpu.kernels, cpu.workers, cpu.memory, kSmall),
      "fake GPU: 1.5 MiB of GPU memory are free, too little to measure with. End what else uses "
      "the GPU: 2.0 MiB are needed",
      Error);
  CHECK(device->memory().free_bytes == free_bytes);
}

TEST_CASE("the peaks alone take at most half of the free memory, or say that it is too little") {
  const auto device = make_fake_device({.memory_bytes = 3 * kMiB});
  GpuProbe probe = kSmall;
  probe.read_bytes = 8 * kMiB;
  const GpuPeaks peaks = measure_gpu_peaks(*device, probe);
  CHECK(peaks.read_gb_s > 0);
  CHECK(peaks.matmul_gflop_s > 0);
  CHECK(device->memory().free_bytes == 3 * kMiB);
  const DeviceBuffer taken = device->allocate(2 * kMiB);
  CHECK_THROWS_AS(measure_gpu_peaks(*device, probe), Error);
}

TEST_CASE("the GPU of a list is found by the words of its name") {
  const auto listed = [](const char* name, const char* kind = "gpu") {
    PciDevice device;
    device.name = name;
    device.kind = kind;
    return device;
  };
  const std::vector<PciDevice> devices = {listed("NVIDIA GeForce RTX 5090", "bridge"),
                                          listed("Intel Corporation UHD Graphics 770"),
                                          listed("NVIDIA Corporation AD102 [GeForce RTX 4090]"),
                                          listed("NVIDIA Corporation GB202 [GeForce RTX 5090]"),
                                          listed("NVIDIA Corporation GB202 [GeForce RTX 5090]")};
  CHECK(find_pci_gpu(devices, "NVIDIA GeForce RTX 5090") == &devices[3]);
  CHECK(find_pci_gpu(devices, "NVIDIA GeForce RTX 4090") == &devices[2]);
  CHECK(find_pci_gpu(devices, "another") == &devices[1]);
  CHECK(find_pci_gpu(std::span(devices).first(1), "NVIDIA GeForce RTX 5090") == nullptr);
}
