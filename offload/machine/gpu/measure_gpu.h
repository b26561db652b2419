// How fast a GPU and its link to the host are: the rates of a profile's GPU.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/workers.h"
#include "cpu_kernels/kernels.h"
#include "device/device.h"
#include "offload/machine/machine.h"
#include "offload/machine/probe_memory.h"

namespace hearth {

struct GpuProbe {
  int64_t read_bytes = int64_t{4} << 30;    // of the GPU's memory: far more than its caches hold
  int64_t link_bytes = int64_t{256} << 20;  // of a copy, no more than read_bytes
  int64_t tile_blocks = 1 << 14;            // far more than run at once, so that the last few tell
  int32_t tile_rounds = 256;                // little
  int32_t launches = 1000;                  // of kernels in a row
  double seconds = 0.3;  // each figure may take; at least three passes are made in any case
};

// All figures are medians over passes; `node` stays 0. Throws Error where the device has too little
// memory or fails; what was taken of it is given back in any case.
Gpu measure_gpu(Device& device, const Kernels& kernels, const Workers& workers,
                const ProbeMemory& memory, const GpuProbe& probe = {});

// What stages are compared with.
struct GpuPeaks {
  double read_gb_s;       // of its memory
  double matmul_gflop_s;  // of its tensor cores
};

// These two alone, in half of the memory that is free where read_bytes are more. Throws Error as
// above.
GpuPeaks measure_gpu_peaks(Device& device, const GpuProbe& probe = {});

// The GPU of the list whose name has most words of `name`, which is CUDA's; of several the first.
// Null where the list has no GPU.
const PciDevice* find_pci_gpu(std::span<const PciDevice> devices, const std::string& name);

}  // namespace hearth
