#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kThreadValues = 8;

__global__ void __launch_bounds__(kBlockThreads) to_bfloat16_kernel(GpuToBfloat16Params p) {
  const int64_t at = kThreadValues * stride_begin();
  if (at + kThreadValues <= p.count) {
    const float4* x = reinterpret_cast<const float4*>(p.x + at);
    const float4 first = x[0], last = x[1];
    *reinterpret_cast<uint4*>(p.out + at) =
        make_uint4(pack_bfloat16s(first.x, first.y), pack_bfloat16s(first.z, first.w),
                   pack_bfloat16s(last.x, last.y), pack_bfloat16s(last.z, last.w));
    return;
  }
  for (int64_t i = at; i < p.count; ++i) p.out[i] = float_to_bfloat16(p.x[i]);
}

}  // namespace

void to_bfloat16(const GpuToBfloat16Params& params, GpuStream stream) {
  if (params.count == 0) return;
  const int64_t blocks = divide_up(params.count, kThreadValues * kBlockThreads);
  launch(to_bfloat16_kernel, {static_cast<uint32_t>(blocks), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
