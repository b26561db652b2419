#include "gpu_kernels/registry.h"

namespace hearth {

namespace emulated {
extern const GpuKernels kKernels;
}

const GpuKernels& emulated_kernels() { return emulated::kKernels; }

}  // namespace hearth
