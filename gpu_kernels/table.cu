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
    .matmuls = matmuls,
    .to_bfloat16 = to_bfloat16,
    .quantize = quantize,
    .rms_norm = rms_norm,
    .rope = rope,

    .embed = embed,
    .project_streams = project_streams,
    .enter_hyper = enter_hyper,
    .leave_hyper = leave_hyper,
    .route = route,
    .expert_tile_size = expert_tile_size,
    .tile_picks = tile_picks,
    .expert_hidden = expert_hidden,
    .expert_output = expert_output,
    .sum_experts = sum_experts,
    .argmax = argmax,
    .add = add,

    .rope_angles = rope_angles,
    .norm_heads = norm_heads,
    .attention_scratch_floats = attention_scratch_floats,
    .attention = attention,
    .append_entries = append_entries,
    .index_scores = index_scores,
    .select_top_k = select_top_k,

    .read_bytes = read_bytes,
    .multiply_tiles = multiply_tiles,
};

}  // namespace hearth::HEARTH_GPU
