// Every field of a profile, once: the reader and the writer walk the same lists, so that neither
// can forget one. The ends of the names are the units.
//
// An archive has: text(key, string), count(key, integer, least), rate(key, double, may be zero),
// list(key, vector, least number of items).
#pragma once

#include "offload/machine/machine.h"

namespace hearth {

constexpr int32_t kProfileVersion = 1;

template <typename Archive>
void fields(Archive& a, MatmulRate& rate) {
  a.count("tokens", rate.tokens, 1);
  a.rate("gflop_s", rate.gflop_s);
}

template <typename Archive>
void fields(Archive& a, FormatRates& rates) {
  a.text("format", rates.format);
  a.rate("stream_gb_s", rates.stream_gb_s);
  a.list("matmul", rates.matmul, 1);
}

template <typename Archive>
void fields(Archive& a, IsaRates& isa) {
  a.text("name", isa.name);
  a.rate("matmul_gflop_s", isa.matmul_gflop_s);
  a.rate("attention_gflop_s", isa.attention_gflop_s);
  a.rate("prompt_attention_gflop_s", isa.prompt_attention_gflop_s);
  a.list("formats", isa.formats, 0);
}

template <typename Archive>
void fields(Archive& a, Cpu& cpu) {
  a.text("name", cpu.name);
  a.count("packages", cpu.packages, 1);
  a.count("cores", cpu.cores, 1);
  a.count("threads", cpu.threads, 1);
  a.count("team", cpu.team, 1);
  a.count("l2_bytes", cpu.l2_bytes, 0);
  a.count("l3_bytes", cpu.l3_bytes, 0);
  a.rate("loop_us", cpu.loop_us);
  a.list("features", cpu.features, 0);
  a.list("isas", cpu.isas, 1);
}

template <typename Archive>
void fields(Archive& a, MemoryNode& node) {
  a.count("memory_bytes", node.memory_bytes, 1);
  a.count("cores", node.cores, 1);
  a.rate("read_gb_s", node.read_gb_s);
  a.rate("copy_gb_s", node.copy_gb_s);
  a.list("read_from_gb_s", node.read_from_gb_s, 1);
}

template <typename Archive>
void fields(Archive& a, PciDevice& device) {
  a.text("address", device.address);
  a.text("name", device.name);
  a.text("kind", device.kind);
  a.text("parent", device.parent, true);
  a.rate("link_gb_s", device.link_gb_s, true);
  a.count("node", device.node, 0);
}

template <typename Archive>
void fields(Archive& a, Gpu& gpu) {
  a.text("name", gpu.name);
  a.count("memory_bytes", gpu.memory_bytes, 1);
  a.count("processors", gpu.processors, 1);
  a.rate("clock_ghz", gpu.clock_ghz);
  a.rate("read_gb_s", gpu.read_gb_s);
  a.rate("matmul_gflop_s", gpu.matmul_gflop_s);
  a.rate("to_gpu_gb_s", gpu.to_gpu_gb_s);
  a.rate("to_host_gb_s", gpu.to_host_gb_s);
  a.rate("to_gpu_beside_cpu_gb_s", gpu.to_gpu_beside_cpu_gb_s);
  a.rate("cpu_read_beside_link_gb_s", gpu.cpu_read_beside_link_gb_s);
  a.rate("launch_us", gpu.launch_us);
  a.rate("sync_us", gpu.sync_us);
  a.count("node", gpu.node, 0);
}

template <typename Archive>
void fields(Archive& a, DiskRate& rate) {
  a.count("block_bytes", rate.block_bytes, 1);
  a.count("depth", rate.depth, 1);
  a.rate("read_gb_s", rate.read_gb_s);
  a.rate("latency_us", rate.latency_us);
}

template <typename Archive>
void fields(Archive& a, Disk& disk) {
  a.text("name", disk.name);
  a.count("capacity_bytes", disk.capacity_bytes, 1);
  a.count("node", disk.node, 0);
  a.list("rates", disk.rates, 1);
}

template <typename Archive>
void fields(Archive& a, Assumption& assumption) {
  a.text("field", assumption.field, true);
  a.text("source", assumption.source);
}

template <typename Archive>
void fields(Archive& a, Machine& machine) {
  int32_t version = kProfileVersion;
  a.count("version", version, 1);
  a.text("name", machine.name);
  a.object("cpu", machine.cpu);
  a.rate("read_gb_s", machine.read_gb_s);
  a.list("nodes", machine.nodes, 1);
  a.list("pci", machine.pci, 0);
  a.list("gpus", machine.gpus, 0);
  a.list("disks", machine.disks, 0);
  a.list("assumed", machine.assumed, 0);
}

}  // namespace hearth
