#include "device/device.h"

#ifdef HEARTH_HAS_CUDA
#include "device/cuda_device.h"
#endif

namespace hearth {

FoundDevice open_device([[maybe_unused]] int index) {
#ifdef HEARTH_HAS_CUDA
  return open_cuda_device(index);
#else
  return {nullptr, "this build has no CUDA"};
#endif
}

}  // namespace hearth
