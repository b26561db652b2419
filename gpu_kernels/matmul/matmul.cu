#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

// Matrices of float32 are stored so for their exactness. Tiles are made of pieces of 32 columns.
bool reads_bfloat16s(const GpuMatmulParams& params) {
  return params.prefill && params.n > kFewTokensMax && params.w.type != TensorType::kF32 &&
         params.w.cols % kPieceColumns == 0;
}

void matmul(const GpuMatmulParams& params, GpuStream stream) {
  const Format format = find_format(params.w.type);
  HEARTH_CHECK(format.multiply != nullptr);
  if (params.n == 0 || params.w.rows == 0) return;
  format.multiply(params, stream);
}

}  // namespace hearth::HEARTH_GPU
