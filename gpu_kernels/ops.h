// The functions of the table, each in a source of its own.
#pragma once

#include "gpu_kernels/gpu_kernels.h"

namespace hearth::HEARTH_GPU {

bool multiplies(TensorType type);
bool reads_bfloat16s(const GpuMatmulParams& params);
void matmul(const GpuMatmulParams& params, GpuStream stream);
void to_bfloat16(const GpuToBfloat16Params& params, GpuStream stream);
void quantize(const GpuQuantizeParams& params, GpuStream stream);
void rms_norm(const GpuRmsNormParams& params, GpuStream stream);
void rope(const GpuRopeParams& params, GpuStream stream);
void swiglu(const GpuSwigluParams& params, GpuStream stream);
void weighted_sum(const GpuWeightedSumParams& params, GpuStream stream);

}  // namespace hearth::HEARTH_GPU
