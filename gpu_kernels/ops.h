// The functions of the table, each in a source of its own.
#pragma once

#include "gpu_kernels/gpu_kernels.h"

namespace hearth::HEARTH_GPU {

bool multiplies(TensorType type);
bool reads_bfloat16s(const GpuMatmulParams& params);
void matmul(const GpuMatmulParams& params, GpuStream stream);
void matmuls(const GpuMatmulParams* products, int32_t count, GpuStream stream);
void to_bfloat16(const GpuToBfloat16Params& params, GpuStream stream);
void quantize(const GpuQuantizeParams& params, GpuStream stream);
void rms_norm(const GpuRmsNormParams& params, GpuStream stream);
void rope(const GpuRopeParams& params, GpuStream stream);

void embed(const GpuEmbedParams& params, GpuStream stream);
void project_streams(const GpuProjectStreamsParams& params, GpuStream stream);
void enter_hyper(const GpuEnterHyperParams& params, GpuStream stream);
void leave_hyper(const GpuLeaveHyperParams& params, GpuStream stream);
void route(const GpuRouteParams& params, GpuStream stream);
int32_t expert_tile_size(const GpuPicks& picks, const GpuExpertMatrices& gate,
                         const GpuExpertMatrices& down);
void tile_picks(const GpuTilePicksParams& params, GpuStream stream);
void expert_hidden(const GpuExpertHiddenParams& params, GpuStream stream);
void expert_output(const GpuExpertOutputParams& params, GpuStream stream);
void sum_experts(const GpuSumExpertsParams& params, GpuStream stream);
void argmax(const GpuArgmaxParams& params, GpuStream stream);
void add(const GpuAddParams& params, GpuStream stream);

void rope_angles(const GpuRopeAnglesParams& params, GpuStream stream);
void norm_heads(const GpuNormHeadsParams& params, GpuStream stream);
int64_t attention_scratch_floats(int64_t n, int32_t heads, int32_t dim);
void attention(const GpuAttentionParams& params, GpuStream stream);
void append_entries(const GpuAppendEntriesParams& params, GpuStream stream);
void index_scores(const GpuIndexScoresParams& params, GpuStream stream);
void select_top_k(const GpuSelectTopKParams& params, GpuStream stream);

void read_bytes(const GpuReadBytesParams& params, GpuStream stream);
int64_t multiply_tiles(const GpuMultiplyTilesParams& params, GpuStream stream);

}  // namespace hearth::HEARTH_GPU
