#include "cli/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "base/error.h"
#include "cli/progress.h"
#include "cpu_kernels/registry.h"
#include "device/device.h"
#include "offload/io/disk_probe.h"
#include "offload/machine/describe.h"
#include "offload/machine/gpu/measure_disk_link.h"
#include "offload/machine/gpu/measure_gpu.h"
#include "offload/machine/machine_rates.h"
#include "offload/machine/measure.h"
#include "offload/machine/team.h"
#include "offload/machine/timing.h"

namespace hearth::cli {
namespace {

// All nodes as one, for a team that isn't spread over them.
void merge_nodes(Machine& machine) {
  MemoryNode all;
  all.memory_bytes = machine.memory_bytes();
  for (const MemoryNode& node : machine.nodes) all.cores += node.cores;
  machine.nodes = {all};
  for (PciDevice& device : machine.pci) device.node = 0;
}

// Tables worth a profile: the plain loops only where nothing else runs.
std::span<const Kernels* const> measured_kernels() {
  const auto usable = usable_kernels();
  return usable.size() > 1 ? usable.first(usable.size() - 1) : usable;
}

// More threads than the cores run at once would be no rates of this machine.
int checked_threads(int wanted, const Topology& topology) {
  const int threads = choose_threads(wanted);
  const int most = topology.describe().cpu.threads;
  if (threads <= most) return threads;
  throw usage_error(fmt::format("{} threads can't be measured: the cores run {}", threads, most),
                    "--threads", fmt::format("Choose 1 to {}", most));
}

class Profiler {
 public:
  explicit Profiler(const ProfilerOptions& options)
      : options_(options),
        topology_(Topology::of_this_machine()),
        workers_(make_team(checked_threads(options.threads, topology_), topology_)) {}

  Machine measure() {
    Machine machine = describe_machine();
    if (std::ssize(machine.nodes) != workers_.nodes()) {
      merge_nodes(machine);
      note(fmt::format("{} threads aren't spread over the memory nodes: these count as one",
                       workers_.threads()));
    }
    machine.cpu.team = workers_.threads();
    if (!options_.disk.empty()) measure_disk(machine);
    const ProbeMemory memory(workers_, topology_, ProbeMemory::default_bytes(workers_.nodes()));
    measure_first_gpu(memory, machine);
    measure_cores(memory, machine);
    bar_.clear();
    round_rates(machine);
    return machine;
  }

  const std::vector<std::string>& notes() const { return notes_; }

 private:
  void note(const std::string& text) { notes_.push_back(text); }
  double seconds() const {  // since the start
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  void show(int64_t done, int64_t total) { bar_.show(done, total); }

  void measure_disk(Machine& machine) {
    Disk disk = describe_disk(options_.disk, topology_);
    if (workers_.nodes() == 1) disk.node = 0;
    const DiskProbeOptions probe = options_.quick ? quick_disk_probe() : full_disk_probe();
    const DiskProbeResult result =
        probe_disk(options_.disk, probe, [&](int done, int total) { show(done, 2 * total); });
    disk.rates = result.rates;
    note(fmt::format("{}: read from a scratch file of {} MiB, which is gone again", options_.disk,
                     result.file_bytes >> 20));
    for (const std::string& text : result.notes) note(options_.disk + ": " + text);
    machine.disks.push_back(std::move(disk));
  }

  // Several rounds, and the median of each figure: what else the machine does for some seconds then
  // spoils one round only. They come last, as many as there is time for. The first half of the bar
  // is the disk's, where one is measured.
  void measure_cores(const ProbeMemory& memory, Machine& machine) {
    constexpr double kSecondsMax = 57;  // of the minute that is promised
    const int rounds = options_.quick ? 1 : 3;
    const auto steps_a_round =
        std::ssize(measured_formats()) * (options_.quick ? 1 : std::ssize(measured_kernels()));
    const int64_t first = options_.disk.empty() ? 0 : rounds * steps_a_round;
    int64_t step = first;
    const auto on_step = [&] { show(++step, first + rounds * steps_a_round + 1); };
    std::vector<Machine> measured;
    double longest = 0;
    while (std::ssize(measured) < rounds &&
           (measured.empty() || seconds() + longest < kSecondsMax)) {
      Machine& rates = measured.emplace_back(machine);
      longest = std::max(longest, seconds_of([&] { measure_round(memory, on_step, rates); }));
    }
    if (std::ssize(measured) < rounds) {
      note(fmt::format("there was time for {} of {} rounds of measurements", measured.size(),
                       rounds));
    }
    machine = median_of(measured);
  }

  void measure_round(const ProbeMemory& memory, const std::function<void()>& on_step,
                     Machine& rates) {
    const auto tables = measured_kernels();
    measure_memory(*tables.front(), workers_, memory, {}, rates);
    rates.cpu.loop_us = measure_loop_us(workers_);
    for (const Kernels* kernels : tables) {
      const bool is_brief = options_.quick && kernels != tables.front();
      const auto formats = is_brief ? measured_formats().first(0) : measured_formats();
      rates.cpu.isas.push_back(measure_isa(*kernels, workers_, memory, formats, {}, on_step));
    }
  }

  // The GPU that hearth would use. Without figures of it the profile is still one of the rest.
  void measure_first_gpu(const ProbeMemory& memory, Machine& machine) {
    std::string why_not;
    const PciDevice* listed = nullptr;
    try {
      const FoundDevice found = open_device(0);
      why_not = found.device == nullptr ? found.why_not : "hearth uses one GPU";
      if (found.device != nullptr) {
        GpuProbe probe;
        if (options_.quick) probe.seconds /= 3;
        Gpu gpu = measure_gpu(*found.device, *measured_kernels().front(), workers_, memory, probe);
        listed = find_pci_gpu(machine.pci, gpu.name);
        if (listed != nullptr) gpu.node = listed->node;
        machine.gpus.push_back(std::move(gpu));
        if (!options_.disk.empty()) measure_disk_to_gpu(*found.device);
      }
    } catch (const Error& error) {
      note(error.what());
      why_not = "measuring failed";
    }
    for (const PciDevice& device : machine.pci) {
      if (device.kind != "gpu" || &device == listed) continue;
      note(fmt::format("GPU {} at {}: in the profile as a PCI device only ({})", device.name,
                       device.address, why_not));
    }
  }

  void measure_disk_to_gpu(Device& device) {
    DiskLinkProbe probe;
    if (options_.quick) probe.write_seconds = 0.5, probe.seconds /= 4;
    const DiskLinkRates rates = measure_disk_link(device, options_.disk, probe);
    note(
        fmt::format("{}: {:.2f} GB/s into the GPU's memory through pinned memory; the disk alone "
                    "{:.2f}, the link alone {:.2f}",
                    options_.disk, rates.both, rates.disk, rates.link));
  }

  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  const ProfilerOptions& options_;
  const Topology& topology_;
  const Workers workers_;
  ProgressBar bar_{"Measuring"};
  std::vector<std::string> notes_;
};

}  // namespace

MeasuredMachine measure_this_machine(const ProfilerOptions& options) {
  Profiler profiler(options);
  Machine machine = profiler.measure();
  return {std::move(machine), profiler.notes()};
}

}  // namespace hearth::cli
