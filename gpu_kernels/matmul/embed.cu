#include "gpu_kernels/common/simt.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

struct Format {
  TensorType type;
  void (*embed)(const GpuEmbedParams& params, GpuStream stream);
};
constexpr Format kFormats[] = {
    {TensorType::kF32, embed_f32},     {TensorType::kF16, embed_f16},
    {TensorType::kBF16, embed_bf16},   {TensorType::kQ8_0, embed_q8_0},
    {TensorType::kMXFP4, embed_mxfp4},
};

}  // namespace

void embed(const GpuEmbedParams& params, GpuStream stream) {
  if (params.n == 0) return;
  for (const Format& format : kFormats) {
    if (format.type == params.table.type) return format.embed(params, stream);
  }
  HEARTH_CHECK(false);
}

}  // namespace hearth::HEARTH_GPU
