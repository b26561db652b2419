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

void matmul(const GpuMatmulParams& params, GpuStream stream) { matmuls(&params, 1, stream); }

void matmuls(const GpuMatmulParams* products, int32_t count, GpuStream stream) {
  HEARTH_CHECK(count <= kGpuMatmulsMax);
  if (count == 0 || products[0].n == 0) return;
  const GpuMatmulParams& first = products[0];
  for (int32_t i = 1; i < count; ++i) {
    const GpuMatmulParams& p = products[i];
    HEARTH_CHECK(p.w.type == first.w.type && p.w.cols == first.w.cols && p.n == first.n);
    HEARTH_CHECK(p.x == first.x && p.xq.codes == first.xq.codes && p.prefill == first.prefill);
  }
  const Format format = find_format(first.w.type);
  HEARTH_CHECK(format.multiply != nullptr);
  format.multiply(products, count, stream);
}

}  // namespace hearth::HEARTH_GPU
