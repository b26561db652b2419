#include "gpu_kernels/registry.h"

#ifdef HEARTH_HAS_CUDA
#include <cuda_runtime_api.h>

namespace hearth::cuda {
extern const GpuKernels kKernels;
}
#endif

namespace hearth {

const GpuKernels* cuda_kernels() {
#ifdef HEARTH_HAS_CUDA
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return &cuda::kKernels;
#endif
  return nullptr;
}

}  // namespace hearth
