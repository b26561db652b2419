#include "gpu_kernels/common/simt.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

void embed(const GpuEmbedParams& params, GpuStream stream) {
  if (params.n == 0) return;
  const Format format = find_format(params.table.type);
  HEARTH_CHECK(format.embed != nullptr);
  format.embed(params, stream);
}

}  // namespace hearth::HEARTH_GPU
