#include "offload/machine/assumed_rates.h"

#include "base/tensor_type.h"

namespace hearth {
namespace {

// Of a Zen 4 core with AVX-512; of an ordinary two-channel memory; of a PCIe 4 disk.
constexpr MatmulRate kCoreRates[] = {{1, 60}, {4, 130}, {16, 200}, {128, 240}};
constexpr double kCoreAttention = 60, kCorePeak = 450;
constexpr double kReadGbS = 60, kCopyGbS = 45, kDiskGbS = 5;
// Of a card of the middle class on 16 lanes of PCIe 4.
constexpr double kGpuReadGbS = 700, kGpuMatmulGflopS = 1e5, kLinkGbS = 25, kCpuBesideGbS = 50,
                 kLaunchUs = 3, kSyncUs = 10;

}  // namespace

void assume_rates(Machine& machine, const std::string& isa) {
  const auto cores = static_cast<double>(machine.cpu.cores);
  FormatRates format{"Q8_0", 0.88 * kReadGbS, {}};
  const TypeInfo& type = *find_type_by_name(format.format.c_str());
  const double reading =
      static_cast<double>(type.block_bytes) / type.block_size / format.stream_gb_s;
  for (const MatmulRate& rate : kCoreRates) {
    const double flops = 2.0 * rate.tokens, computing = flops / (rate.gflop_s * cores);
    format.matmul.push_back(
        {rate.tokens, flops / (rate.tokens > kStreamedTokens ? computing + reading : computing)});
  }
  machine.cpu.loop_us = 5;
  machine.cpu.isas = {
      {isa, kCorePeak * cores, kCoreAttention * cores, kCoreAttention * cores, {format}}};
  machine.read_gb_s = kReadGbS;
  for (MemoryNode& node : machine.nodes) node.read_gb_s = kReadGbS, node.copy_gb_s = kCopyGbS;
  machine.disks = {{"the model's disk", 0, {{int64_t{1} << 20, 32, kDiskGbS, 1000}}, 0}};
  for (Gpu& gpu : machine.gpus) {
    gpu.read_gb_s = kGpuReadGbS;
    gpu.matmul_gflop_s = kGpuMatmulGflopS;
    gpu.to_gpu_gb_s = gpu.to_host_gb_s = gpu.to_gpu_beside_cpu_gb_s = kLinkGbS;
    gpu.cpu_read_beside_link_gb_s = kCpuBesideGbS;
    gpu.launch_us = kLaunchUs;
    gpu.sync_us = kSyncUs;
  }
  for (const char* field :
       {"/cpu/loop_us", "/cpu/isas", "/read_gb_s", "/nodes", "/disks", "/gpus"}) {
    machine.assumed.push_back({field, "an ordinary desktop; hearth profile measures this one"});
  }
}

}  // namespace hearth
