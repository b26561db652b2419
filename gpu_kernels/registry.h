// Which tables of GPU kernels there are.
#pragma once

#include "gpu_kernels/gpu_kernels.h"

namespace hearth {

// Null where this build has no CUDA, or this machine no device that it can use.
const GpuKernels* cuda_kernels();

// The same sources on emulated threads. Only in the library hearth_gpu_emulated, for tests and the
// fake device.
const GpuKernels& emulated_kernels();

}  // namespace hearth
