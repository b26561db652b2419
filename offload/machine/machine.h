// A machine as the planner knows it: what it has and how fast that is, measured by `hearth profile`
// or written down from published figures. Plain data; machine_json.h reads and writes it.
//
// A field's unit ends its name: _bytes, _gb_s (10^9 bytes a second), _gflop_s (multiply-adds count
// twice), _ghz (10^9 cycles a second), _us; one without counts things.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/tensor_type.h"

namespace hearth {

// How fast weights of one format are multiplied, by the number of tokens they are multiplied with.
struct MatmulRate {
  int32_t tokens;
  double gflop_s;  // all cores together
  bool operator==(const MatmulRate&) const = default;
};

constexpr int32_t kStreamedTokens = 4;

// As in GGUF tools, "MXFP4"; of interleaved rows (format/interleave.h) "Q4_K interleaved".
std::string format_name(TensorType type, bool interleaved);
// Whether it is such a name.
bool is_format_name(const std::string& name);

struct FormatRates {
  std::string format;      // as format_name has it
  double stream_gb_s = 0;  // one token, all cores, weights out of memory
  // By ascending tokens, the first 1. Up to kStreamedTokens with weights in the caches, since
  // kernels then compute while they read; for more with weights out of memory, as in prompts.
  std::vector<MatmulRate> matmul;
  bool operator==(const FormatRates&) const = default;
};

// What the cores do with one table of kernels.
struct IsaRates {
  std::string name;                     // as --isa names it
  double matmul_gflop_s = 0;            // the multiply units, all cores, working in registers
  double attention_gflop_s = 0;         // attention over cached rows, all cores, as in decode
  double prompt_attention_gflop_s = 0;  // the same as in prompts
  std::vector<FormatRates> formats;
  bool operator==(const IsaRates&) const = default;
};

struct Cpu {
  std::string name;
  int32_t packages = 1;
  int32_t cores = 1;     // physical ones
  int32_t threads = 1;   // that the cores run at once (SMT)
  int32_t team = 1;      // compute threads that the rates are of; "all cores" means all of them
  int64_t l2_bytes = 0;  // of a core
  int64_t l3_bytes = 0;  // all
  double loop_us = 0;    // to start all cores on a loop and to wait for the last
  std::vector<std::string> features;
  std::vector<IsaRates> isas;  // best first
  bool operator==(const Cpu&) const = default;
};

struct MemoryNode {
  int64_t memory_bytes = 0;
  int32_t cores = 0;
  double read_gb_s = 0;                // by the node's own cores
  double copy_gb_s = 0;                // read and written, both counted
  std::vector<double> read_from_gb_s;  // [nodes] by the cores of each node
  bool operator==(const MemoryNode&) const = default;
};

struct Gpu {
  std::string name;
  int64_t memory_bytes = 0;  // that a program can take
  int32_t processors = 0;    // streaming multiprocessors
  double clock_ghz = 0;      // theirs, at most
  double read_gb_s = 0;
  double matmul_gflop_s = 0;  // tensor cores working in registers, bfloat16 in, float32 out
  // The link to the host, from pinned memory; then while the CPU reads memory as fast as it can.
  double to_gpu_gb_s = 0;
  double to_host_gb_s = 0;
  double to_gpu_beside_cpu_gb_s = 0;
  double cpu_read_beside_link_gb_s = 0;
  double launch_us = 0;  // of a kernel in a stream or graph
  double sync_us = 0;    // host waits for the device, or the device for the host: half of a round
                         // of 16 KiB up, a kernel, 16 KiB down
  int32_t node = 0;      // memory node its link hangs on
  bool operator==(const Gpu&) const = default;
};

// Reads from a disk, O_DIRECT, `depth` of them in flight.
struct DiskRate {
  int64_t block_bytes;
  int32_t depth;
  double read_gb_s;
  double latency_us;  // of one read, on average
  bool operator==(const DiskRate&) const = default;
};

struct Disk {
  std::string name;
  int64_t capacity_bytes = 0;
  std::vector<DiskRate> rates;
  int32_t node = 0;
  bool operator==(const Disk&) const = default;
};

struct PciDevice {
  std::string address;  // 0000:01:00.0
  std::string name;
  std::string kind;      // "gpu", "nvme", "storage", "display", "bridge"
  std::string parent;    // address of the bridge above, also in the list; empty at the top
  double link_gb_s = 0;  // what the link carries a way at best; 0: not known
  int32_t node = 0;
  bool operator==(const PciDevice&) const = default;
};

// A figure nobody measured on this machine: where in the profile, and whose word it is.
struct Assumption {
  std::string field;  // JSON pointer; it covers everything under it
  std::string source;
  bool operator==(const Assumption&) const = default;
};

struct Machine {
  std::string name;
  Cpu cpu;
  double read_gb_s = 0;  // of memory, all cores of all nodes together
  std::vector<MemoryNode> nodes;
  std::vector<PciDevice> pci;
  std::vector<Gpu> gpus;
  std::vector<Disk> disks;
  std::vector<Assumption> assumed;

  int64_t memory_bytes() const;  // of all nodes
  bool operator==(const Machine&) const = default;
};

}  // namespace hearth
