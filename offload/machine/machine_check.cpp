// What must hold between the fields of a profile.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>

#include "offload/machine/machine_faults.h"

namespace hearth {
namespace {

constexpr std::string_view kKinds[] = {"gpu", "nvme", "storage", "display", "bridge"};
constexpr std::string_view kIsas[] = {"amx", "avx512", "avx2", "reference"};  // that have kernels

// The first kind of fault found explains the others: counts are compared with one another.
void check_cores(const Machine& machine, ProfileFaults& faults) {
  const Cpu& cpu = machine.cpu;
  if (faults.at("/cpu/cores")) return;
  bool is_counted = !machine.nodes.empty();
  int64_t cores = 0;
  for (size_t i = 0; i < machine.nodes.size(); ++i) {
    is_counted = is_counted && !faults.at(fmt::format("/nodes/{}/cores", i));
    cores += machine.nodes[i].cores;
  }
  if (is_counted && cores != cpu.cores) {
    return faults.add("/nodes", fmt::format("have {} cores, the CPU has {}", cores, cpu.cores));
  }
  if (!faults.at("/cpu/packages") && cpu.packages > cpu.cores) {
    faults.add("/cpu/packages",
               fmt::format("is {}, more than the {} cores", cpu.packages, cpu.cores));
  }
  if (faults.at("/cpu/threads")) return;
  if (cpu.threads < cpu.cores) {
    faults.add("/cpu/threads",
               fmt::format("is {}, fewer than the {} cores", cpu.threads, cpu.cores));
  } else if (!faults.at("/cpu/team") && cpu.team > cpu.threads) {
    faults.add("/cpu/team",
               fmt::format("is {}, more than the {} threads of the cores", cpu.team, cpu.threads));
  }
}

// Rates as they are related by nature. Measured ones scatter, so only what is more than `kTimes`
// the rate that bounds it is a fault.
void check_rates(const Machine& machine, ProfileFaults& faults) {
  constexpr double kTimes = 2;
  const auto check = [&](const std::string& pointer, double value, const std::string& bound_pointer,
                         double bound) {
    if (faults.at(pointer) || faults.at(bound_pointer) || value <= kTimes * bound) return;
    faults.add(pointer, fmt::format("is {}, more than {} times the {} of {}", value, kTimes, bound,
                                    bound_pointer));
  };
  double read_gb_s = 0;
  for (size_t i = 0; i < machine.nodes.size(); ++i) {
    const MemoryNode& node = machine.nodes[i];
    const std::string pointer = fmt::format("/nodes/{}", i);
    check(pointer + "/copy_gb_s", node.copy_gb_s, pointer + "/read_gb_s", node.read_gb_s);
    read_gb_s += node.read_gb_s;
  }
  for (size_t i = 0; i < machine.gpus.size(); ++i) {
    const Gpu& gpu = machine.gpus[i];
    const std::string pointer = fmt::format("/gpus/{}", i);
    check(pointer + "/to_gpu_beside_cpu_gb_s", gpu.to_gpu_beside_cpu_gb_s, pointer + "/to_gpu_gb_s",
          gpu.to_gpu_gb_s);
    check(pointer + "/cpu_read_beside_link_gb_s", gpu.cpu_read_beside_link_gb_s, "/nodes",
          read_gb_s);
  }
}

// `names`: those of the items of the list at `pointer`, under `key`.
void check_unique(const std::vector<std::string>& names, const std::string& pointer,
                  const std::string& key, ProfileFaults& faults) {
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string at = fmt::format("{}/{}{}", pointer, i, key);
    const auto end = names.begin() + static_cast<ptrdiff_t>(i);
    if (!faults.at(at) && std::find(names.begin(), end, names[i]) != end) {
      faults.add(at, shown(names[i]) + " stands there twice");
    }
  }
}

void check_one_of(const std::string& name, std::span<const std::string_view> known,
                  const std::string& pointer, ProfileFaults& faults) {
  if (faults.at(pointer) || std::ranges::find(known, name) != known.end()) return;
  faults.add(pointer,
             fmt::format("is {}, must be one of: {}", shown(name), fmt::join(known, ", ")));
}

template <typename T>
std::vector<std::string> names_of(const std::vector<T>& items, std::string T::*name) {
  std::vector<std::string> names;
  for (const T& item : items) names.push_back(item.*name);
  return names;
}

void check_format(const FormatRates& rates, const std::string& pointer, ProfileFaults& faults) {
  if (!faults.at(pointer + "/format") && !is_format_name(rates.format)) {
    faults.add(pointer + "/format", shown(rates.format) + " is no weight format");
  }
  int32_t before = 0;
  for (size_t i = 0; i < rates.matmul.size(); ++i) {
    const std::string at = fmt::format("{}/matmul/{}/tokens", pointer, i);
    const int32_t tokens = rates.matmul[i].tokens;
    if (faults.at(at)) continue;
    if (i == 0 && tokens != 1) faults.add(at, "must be 1 in the first rate");
    if (tokens <= before) faults.add(at, "is not more than the one before");
    before = tokens;
  }
}

void check_isas(const Cpu& cpu, ProfileFaults& faults) {
  check_unique(cpu.features, "/cpu/features", "", faults);
  check_unique(names_of(cpu.isas, &IsaRates::name), "/cpu/isas", "/name", faults);
  for (size_t i = 0; i < cpu.isas.size(); ++i) {
    const std::string pointer = fmt::format("/cpu/isas/{}/formats", i);
    const std::vector<FormatRates>& formats = cpu.isas[i].formats;
    const std::string name = fmt::format("/cpu/isas/{}/name", i);
    check_one_of(cpu.isas[i].name, kIsas, name, faults);
    if (i == 0 && formats.empty() && !faults.at(pointer)) {
      faults.add(pointer, "must have a format: the first instruction set is the one used");
    }
    check_unique(names_of(formats, &FormatRates::format), pointer, "/format", faults);
    for (size_t f = 0; f < formats.size(); ++f) {
      check_format(formats[f], fmt::format("{}/{}", pointer, f), faults);
    }
  }
}

void check_nodes(const Machine& machine, ProfileFaults& faults) {
  const size_t nodes = machine.nodes.size();
  if (faults.at("/nodes") && nodes == 0) return;
  for (size_t i = 0; i < nodes; ++i) {
    const std::string pointer = fmt::format("/nodes/{}/read_from_gb_s", i);
    const size_t rates = machine.nodes[i].read_from_gb_s.size();
    if (!faults.at(pointer) && rates != nodes) {
      faults.add(pointer,
                 fmt::format("has {} rates, must have one for each of the {} nodes", rates, nodes));
    }
  }
  const auto check = [&](const char* list, size_t i, int32_t node) {
    const std::string pointer = fmt::format("/{}/{}/node", list, i);
    if (!faults.at(pointer) && static_cast<size_t>(node) >= nodes) {
      faults.add(pointer, fmt::format("is {}, must be less than the {} nodes", node, nodes));
    }
  };
  for (size_t i = 0; i < machine.pci.size(); ++i) check("pci", i, machine.pci[i].node);
  for (size_t i = 0; i < machine.gpus.size(); ++i) check("gpus", i, machine.gpus[i].node);
  for (size_t i = 0; i < machine.disks.size(); ++i) check("disks", i, machine.disks[i].node);
}

void check_pci(const Machine& machine, ProfileFaults& faults) {
  const std::vector<std::string> addresses = names_of(machine.pci, &PciDevice::address);
  check_unique(addresses, "/pci", "/address", faults);
  for (size_t i = 0; i < machine.pci.size(); ++i) {
    const std::string& parent = machine.pci[i].parent;
    const std::string kind = fmt::format("/pci/{}/kind", i);
    check_one_of(machine.pci[i].kind, kKinds, kind, faults);
    const std::string pointer = fmt::format("/pci/{}/parent", i);
    const bool is_known = std::ranges::find(addresses, parent) != addresses.end();
    if (faults.at(pointer) || faults.at(fmt::format("/pci/{}/address", i))) continue;
    if (parent.empty()) continue;
    if (!is_known || parent == addresses[i]) {
      faults.add(pointer, shown(parent) + " is not the address of another device of the list");
    }
  }
}

void check_disks(const Machine& machine, ProfileFaults& faults) {
  for (size_t d = 0; d < machine.disks.size(); ++d) {
    std::pair<int64_t, int32_t> before{0, 0};
    for (size_t i = 0; i < machine.disks[d].rates.size(); ++i) {
      const DiskRate& rate = machine.disks[d].rates[i];
      const std::string pointer = fmt::format("/disks/{}/rates/{}", d, i);
      if (faults.at(pointer + "/block_bytes") || faults.at(pointer + "/depth")) continue;
      const std::pair at{rate.block_bytes, rate.depth};
      if (at <= before) {
        faults.add(pointer, "is not after the one before in order of block_bytes, then depth");
      }
      before = at;
    }
  }
}

}  // namespace

void ProfileFaults::add(const std::string& pointer, const std::string& what) {
  problems_.add(pointer.empty() ? what : pointer + ": " + what);
  add_silently(pointer);
}

void ProfileFaults::add_silently(const std::string& pointer) {
  constexpr size_t kPointersMax = 1000;  // far more than are shown
  if (pointers_.size() < kPointersMax) pointers_.insert(pointer);
}

bool ProfileFaults::at(const std::string& pointer) const {
  const auto below = pointers_.lower_bound(pointer + "/");
  if (below != pointers_.end() && below->starts_with(pointer + "/")) return true;
  for (size_t end = pointer.size(); end != std::string::npos && end > 0;
       end = pointer.rfind('/', end - 1)) {
    if (pointers_.contains(pointer.substr(0, end))) return true;
  }
  return pointers_.contains("");
}

std::string shown(std::string_view text) {
  constexpr size_t kBytesShown = 80;
  std::string out(text.substr(0, kBytesShown));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return text.size() > kBytesShown ? out + ".." : out;
}

void check_machine(const Machine& machine, ProfileFaults& faults) {
  check_isas(machine.cpu, faults);
  check_nodes(machine, faults);
  check_pci(machine, faults);
  check_disks(machine, faults);
  check_rates(machine, faults);
  check_cores(machine, faults);  // last, as it blames all nodes
}

}  // namespace hearth
