// The weight formats that matmul knows, each in a source of its own.
#pragma once

#include "gpu_kernels/gpu_kernels.h"

namespace hearth::HEARTH_GPU {

void multiply_f32(const GpuMatmulParams& params, GpuStream stream);
void multiply_f16(const GpuMatmulParams& params, GpuStream stream);
void multiply_bf16(const GpuMatmulParams& params, GpuStream stream);
void multiply_f8_e4m3(const GpuMatmulParams& params, GpuStream stream);
void multiply_q4_0(const GpuMatmulParams& params, GpuStream stream);
void multiply_q4_1(const GpuMatmulParams& params, GpuStream stream);
void multiply_q5_0(const GpuMatmulParams& params, GpuStream stream);
void multiply_q5_1(const GpuMatmulParams& params, GpuStream stream);
void multiply_q8_0(const GpuMatmulParams& params, GpuStream stream);
void multiply_q2_k(const GpuMatmulParams& params, GpuStream stream);
void multiply_q3_k(const GpuMatmulParams& params, GpuStream stream);
void multiply_q4_k(const GpuMatmulParams& params, GpuStream stream);
void multiply_q5_k(const GpuMatmulParams& params, GpuStream stream);
void multiply_q6_k(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq2_xxs(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq2_xs(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq2_s(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq3_xxs(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq3_s(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq4_nl(const GpuMatmulParams& params, GpuStream stream);
void multiply_iq4_xs(const GpuMatmulParams& params, GpuStream stream);
void multiply_mxfp4(const GpuMatmulParams& params, GpuStream stream);

}  // namespace hearth::HEARTH_GPU
