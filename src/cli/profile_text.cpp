#include "cli/profile_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>

#include "base/units.h"

namespace hearth::cli {
namespace {

constexpr double kGiB = 1 << 30;
constexpr double kMiB = 1 << 20;

using Out = std::back_insert_iterator<std::string>;

void add_cpu(const Cpu& cpu, Out out) {
  fmt::format_to(out, "cpu      {}: {}, {}, {}\n", cpu.name, counted(cpu.cores, "core"),
                 counted(cpu.threads, "thread"), counted(cpu.packages, "package"));
  fmt::format_to(out, "         caches {:.1f} MiB a core, {:.0f} MiB shared; {}\n",
                 static_cast<double>(cpu.l2_bytes) / kMiB, static_cast<double>(cpu.l3_bytes) / kMiB,
                 fmt::join(cpu.features, " "));
  fmt::format_to(out, "         a loop of {} starts and ends in {:.1f} us\n",
                 counted(cpu.team, "compute thread"), cpu.loop_us);
}

void add_memory(const Machine& machine, Out out) {
  fmt::format_to(out, "memory   {:.1f} GiB, all cores read {:.1f} GB/s\n",
                 static_cast<double>(machine.memory_bytes()) / kGiB, machine.read_gb_s);
  for (size_t i = 0; i < machine.nodes.size(); ++i) {
    const MemoryNode& node = machine.nodes[i];
    fmt::format_to(out, "         node {}: {:.1f} GiB, {}, read {:.1f} GB/s, copy {:.1f} GB/s", i,
                   static_cast<double>(node.memory_bytes) / kGiB, counted(node.cores, "core"),
                   node.read_gb_s, node.copy_gb_s);
    if (machine.nodes.size() > 1) {
      fmt::format_to(out, ", by the cores of each node {:.1f} GB/s",
                     fmt::join(node.read_from_gb_s, ", "));
    }
    fmt::format_to(out, "\n");
  }
}

void add_formats(const IsaRates& isa, Out out) {
  if (isa.formats.empty()) return;
  fmt::format_to(out, "  {:<18} {:>11}", "", "from memory");
  for (const MatmulRate& rate : isa.formats.front().matmul) {
    fmt::format_to(out, " {:>10}", counted(rate.tokens, "token"));
  }
  fmt::format_to(out, "\n  {:<18} {:>11}", "format", "GB/s");
  for (size_t i = 0; i < isa.formats.front().matmul.size(); ++i) {
    fmt::format_to(out, " {:>10}", "GFLOP/s");
  }
  fmt::format_to(out, "\n");
  for (const FormatRates& format : isa.formats) {
    fmt::format_to(out, "  {:<18} {:>11.1f}", format.format, format.stream_gb_s);
    for (const MatmulRate& rate : format.matmul) fmt::format_to(out, " {:>10.1f}", rate.gflop_s);
    fmt::format_to(out, "\n");
  }
}

void add_isas(const Cpu& cpu, Out out) {
  for (const IsaRates& isa : cpu.isas) {
    fmt::format_to(
        out, "\n{}: {:.0f} GFLOP/s in registers, {:.0f} GFLOP/s in attention, {:.0f} in prompts\n",
        isa.name, isa.matmul_gflop_s, isa.attention_gflop_s, isa.prompt_attention_gflop_s);
    add_formats(isa, out);
  }
}

void add_pci(const Machine& machine, Out out) {
  if (!machine.pci.empty()) fmt::format_to(out, "\n");
  for (const PciDevice& device : machine.pci) {
    fmt::format_to(out, "pci      {} {:<8} {}, node {}", device.address, device.kind, device.name,
                   device.node);
    if (device.link_gb_s > 0) fmt::format_to(out, ", {:.1f} GB/s", device.link_gb_s);
    if (!device.parent.empty()) fmt::format_to(out, ", below {}", device.parent);
    fmt::format_to(out, "\n");
  }
}

void add_gpus(const Machine& machine, Out out) {
  for (const Gpu& gpu : machine.gpus) {
    fmt::format_to(out, "\ngpu      {}: {:.1f} GiB, read {:.0f} GB/s, {:.0f} GFLOP/s\n", gpu.name,
                   static_cast<double>(gpu.memory_bytes) / kGiB, gpu.read_gb_s, gpu.matmul_gflop_s);
    fmt::format_to(out, "         {} processors at {:.2f} GHz\n", gpu.processors, gpu.clock_ghz);
    fmt::format_to(out,
                   "         to it {:.1f} GB/s, back {:.1f} GB/s; to it while the CPU reads memory "
                   "{:.1f} GB/s beside {:.1f} GB/s\n",
                   gpu.to_gpu_gb_s, gpu.to_host_gb_s, gpu.to_gpu_beside_cpu_gb_s,
                   gpu.cpu_read_beside_link_gb_s);
    fmt::format_to(out, "         a kernel starts in {:.1f} us, a wait takes {:.1f} us\n",
                   gpu.launch_us, gpu.sync_us);
  }
}

void add_disks(const Machine& machine, Out out) {
  for (const Disk& disk : machine.disks) {
    fmt::format_to(out, "\ndisk     {}, {:.0f} GB, node {}\n", disk.name,
                   static_cast<double>(disk.capacity_bytes) * 1e-9, disk.node);
    fmt::format_to(out, "  {:>10} {:>8} {:>10} {:>12}\n", "block KiB", "depth", "GB/s",
                   "latency us");
    for (const DiskRate& rate : disk.rates) {
      fmt::format_to(out, "  {:>10} {:>8} {:>10.3f} {:>12.0f}\n", rate.block_bytes >> 10,
                     rate.depth, rate.read_gb_s, rate.latency_us);
    }
  }
}

}  // namespace

std::string profile_text(const Machine& machine) {
  std::string text = machine.name + "\n\n";
  const Out out(text);
  add_cpu(machine.cpu, out);
  add_memory(machine, out);
  add_pci(machine, out);
  add_gpus(machine, out);
  add_isas(machine.cpu, out);
  add_disks(machine, out);
  return text;
}

}  // namespace hearth::cli
