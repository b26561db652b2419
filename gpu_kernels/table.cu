#include "gpu_kernels/common/simt.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

#define HEARTH_NAME_OF(table) #table
#define HEARTH_NAME(table) HEARTH_NAME_OF(table)

extern const GpuKernels kKernels;
const GpuKernels kKernels = {
    .name = HEARTH_NAME(HEARTH_GPU),
    .multiplies = multiplies,
    .matmul = matmul,
    .quantize = quantize,
    .rms_norm = rms_norm,
    .rope = rope,
    .swiglu = swiglu,
    .weighted_sum = weighted_sum,

    .embed = embed,
    .enter_hyper = enter_hyper,
    .leave_hyper = leave_hyper,
    .route = route,
    .tile_picks = tile_picks,
    .expert_hidden = expert_hidden,
    .expert_output = expert_output,
    .sum_experts = sum_experts,
    .argmax = argmax,
    .add = add,
    .gather = gather,
};

}  // namespace hearth::HEARTH_GPU
