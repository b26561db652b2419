#include "gpu_kernels/common/simt.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

#define HEARTH_NAME_OF(table) #table
#define HEARTH_NAME(table) HEARTH_NAME_OF(table)

extern const GpuKernels kKernels;
const GpuKernels kKernels = {
    .name = HEARTH_NAME(HEARTH_GPU),
    .multiplies = multiplies,
    .reads_bfloat16s = reads_bfloat16s,
    .matmul = matmul,
    .to_bfloat16 = to_bfloat16,
    .quantize = quantize,
    .rms_norm = rms_norm,
    .rope = rope,
    .swiglu = swiglu,
    .weighted_sum = weighted_sum,
};

}  // namespace hearth::HEARTH_GPU
