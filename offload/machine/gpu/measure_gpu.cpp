#include "offload/machine/gpu/measure_gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"
#include "offload/machine/measure.h"
#include "offload/machine/timing.h"

namespace hearth {
namespace {

constexpr int64_t kLaunchedValues = 256;    // of the least kernel: one block
constexpr int64_t kExchangedValues = 4096;  // a token's activations in Flash
constexpr int64_t kExchangedBytes = kExchangedValues * static_cast<int64_t>(sizeof(float));
constexpr int64_t kThreadReadBytes = 16 << 20, kReadPieceBytes = 2 << 20;  // beside a copy
constexpr int kTriesBeside = 3;
constexpr int64_t kTileValues = (kGpuTileRows + kGpuTileColumns) * kGpuTileDepth;
constexpr int64_t kTileBytes = kTileValues * static_cast<int64_t>(sizeof(uint16_t));
constexpr int64_t kOtherBytes = 1 << 20;  // sums

// bfloat16s from 1 to 2, of either sign: bits that change make tensor cores work as weights do.
std::vector<uint16_t> tile_values(int64_t count) {
  std::vector<uint16_t> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<uint16_t>(0x3f80 | (i * 2654435761u >> 8 & 0x807f));
  }
  return values;
}

class GpuMeter {
 public:
  GpuMeter(Device& device, const GpuProbe& probe)
      : probe_(probe),
        device_(device),
        memory_(device.allocate(static_cast<size_t>(probe.read_bytes))),
        pinned_(device.allocate_pinned(static_cast<size_t>(probe.link_bytes))),
        stream_(device.create_stream()) {}

  double read_gb_s() {
    const int64_t blocks = (probe_.read_bytes + kGpuReadBlockBytes - 1) / kGpuReadBlockBytes;
    const DeviceBuffer sums = device_.allocate(static_cast<size_t>(blocks) * sizeof(uint32_t));
    return 1e-9 * median_rate(probe_.seconds, [&] {
             device_.kernels().read_bytes({memory_.data(), probe_.read_bytes, sums.as<uint32_t>()},
                                          stream_.handle());
             device_.synchronize(stream_);
             return static_cast<double>(probe_.read_bytes);
           });
  }

  double multiply_gflop_s() {
    constexpr int64_t kA = kGpuTileRows * kGpuTileDepth;
    const std::vector<uint16_t> values = tile_values(kTileValues);
    uint16_t* a = memory_.as<uint16_t>();
    device_.copy_to_device(a, values.data(), values.size() * sizeof(uint16_t), stream_);
    const DeviceBuffer sums =
        device_.allocate(static_cast<size_t>(probe_.tile_blocks) * sizeof(float));
    device_.synchronize(stream_);
    return 1e-9 * median_rate(probe_.seconds, [&] {
             const int64_t done = device_.kernels().multiply_tiles(
                 {a, a + kA, probe_.tile_blocks, probe_.tile_rounds, sums.as<float>()},
                 stream_.handle());
             device_.synchronize(stream_);
             return static_cast<double>(done);
           });
  }

  double to_gpu_gb_s() {
    return 1e-9 * median_rate(probe_.seconds, [&] {
             copy_to_gpu();
             device_.synchronize(stream_);
             return static_cast<double>(probe_.link_bytes);
           });
  }

  double to_host_gb_s() {
    return 1e-9 * median_rate(probe_.seconds, [&] {
             device_.copy_to_host(pinned_.data(), memory_.data(), pinned_.bytes(), stream_);
             device_.synchronize(stream_);
             return static_cast<double>(probe_.link_bytes);
           });
  }

  double launch_us() {
    float* x = memory_.as<float>();
    return 1e6 / median_rate(probe_.seconds, [&] {
             for (int32_t i = 0; i < probe_.launches; ++i) {
               device_.kernels().add({x, kLaunchedValues, x + kLaunchedValues}, stream_.handle());
             }
             device_.synchronize(stream_);
             return static_cast<double>(probe_.launches);
           });
  }

  // What a layer with experts elsewhere does over and over: the GPU waits for what comes up, works,
  // and the host waits for what goes down. Two waits a round.
  double sync_us() {
    float* x = memory_.as<float>();
    float* up = pinned_.as<float>();
    return 1e6 / median_rate(probe_.seconds, [&] {
             device_.copy_to_device(x, up, kExchangedBytes, stream_);
             device_.kernels().add({x, kExchangedValues, x + kExchangedValues}, stream_.handle());
             device_.copy_to_host(up + kExchangedValues, x + kExchangedValues, kExchangedBytes,
                                  stream_);
             device_.synchronize(stream_);
             return 2.0;
           });
  }

  // Copies to the GPU of about `seconds`, and what `read_some`, again and again, reads meanwhile.
  template <typename F>
  void measure_beside(F&& read_some, Gpu& gpu) {
    const double copy_seconds = static_cast<double>(probe_.link_bytes) / (gpu.to_gpu_gb_s * 1e9);
    const double wanted = probe_.seconds / kTriesBeside / copy_seconds;
    const auto copies = static_cast<int64_t>(std::max(wanted, 1.0));
    const Event copied = device_.create_event();
    std::vector<double> link_rates, cpu_rates;
    for (int i = 0; i < kTriesBeside; ++i) {
      int64_t read = 0;
      const double seconds = seconds_of([&] {
        for (int64_t c = 0; c < copies; ++c) copy_to_gpu();
        device_.record(copied, stream_);
        do {
          read += read_some();
        } while (!device_.done(copied));
      });
      link_rates.push_back(1e-9 * static_cast<double>(copies * probe_.link_bytes) / seconds);
      cpu_rates.push_back(1e-9 * static_cast<double>(read) / seconds);
    }
    gpu.to_gpu_beside_cpu_gb_s = median(std::move(link_rates));
    gpu.cpu_read_beside_link_gb_s = median(std::move(cpu_rates));
  }

 private:
  void copy_to_gpu() {
    device_.copy_to_device(memory_.data(), pinned_.data(), pinned_.bytes(), stream_);
  }

  const GpuProbe& probe_;
  Device& device_;
  DeviceBuffer memory_;
  PinnedBuffer pinned_;
  Stream stream_;
};

void check_memory(const Device& device, int64_t free_bytes, int64_t read_bytes) {
  const int64_t needed = read_bytes + kOtherBytes;
  if (free_bytes >= needed) return;
  throw Error(
      fmt::format("{} of GPU memory are free, too little to measure with", binary_size(free_bytes)),
      device.name(), fmt::format("End what else uses the GPU: {} are needed", binary_size(needed)));
}

}  // namespace

Gpu measure_gpu(Device& device, const Kernels& kernels, const Workers& workers,
                const ProbeMemory& memory, const GpuProbe& probe) {
  HEARTH_CHECK(probe.link_bytes >= 2 * kExchangedBytes && probe.link_bytes <= probe.read_bytes);
  Gpu gpu;
  gpu.name = device.name();
  gpu.memory_bytes = device.memory().free_bytes;
  gpu.processors = device.cores().processors;
  gpu.clock_ghz = device.cores().clock_ghz;
  check_memory(device, gpu.memory_bytes, probe.read_bytes);
  GpuMeter meter(device, probe);
  meter.multiply_gflop_s();  // wakes the GPU, which runs slowly where it saves power
  gpu.matmul_gflop_s = meter.multiply_gflop_s();
  gpu.read_gb_s = meter.read_gb_s();
  gpu.launch_us = meter.launch_us();
  gpu.sync_us = meter.sync_us();
  gpu.to_host_gb_s = meter.to_host_gb_s();
  gpu.to_gpu_gb_s = meter.to_gpu_gb_s();

  const int64_t node_bytes = std::ssize(memory.of_node(0));
  const int64_t part = std::min(kThreadReadBytes * workers.threads() / memory.nodes(), node_bytes);
  int64_t at = 0;
  meter.measure_beside(
      [&] {
        if (at + part > node_bytes) at = 0;
        const int64_t read = read_part(kernels, workers, memory, at, part, kReadPieceBytes);
        at += part;
        return read;
      },
      gpu);
  return gpu;
}

GpuPeaks measure_gpu_peaks(Device& device, const GpuProbe& probe) {
  const int64_t free_bytes = device.memory().free_bytes;
  GpuProbe fitting = probe;
  fitting.link_bytes = 0;
  fitting.read_bytes = std::max(std::min(probe.read_bytes, free_bytes / 2), kTileBytes);
  check_memory(device, free_bytes, fitting.read_bytes);
  GpuMeter meter(device, fitting);
  meter.multiply_gflop_s();  // wakes the GPU, as above
  const double matmul_gflop_s = meter.multiply_gflop_s();
  return {meter.read_gb_s(), matmul_gflop_s};
}

const PciDevice* find_pci_gpu(std::span<const PciDevice> devices, const std::string& name) {
  const PciDevice* best = nullptr;
  int best_words = -1;
  for (const PciDevice& device : devices) {
    if (device.kind != "gpu") continue;
    std::istringstream words(name);
    int shared_words = 0;
    for (std::string word; words >> word;) {
      if (device.name.find(word) != std::string::npos) ++shared_words;
    }
    if (shared_words <= best_words) continue;
    best = &device;
    best_words = shared_words;
  }
  return best;
}

}  // namespace hearth
