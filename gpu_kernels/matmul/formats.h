// The weight formats that matmul knows, each in a source of its own.
#pragma once

#include "gpu_kernels/gpu_kernels.h"

namespace hearth::HEARTH_GPU {

void multiply_f32(const GpuMatmulParams& params, GpuStream stream);
void multiply_f16(const GpuMatmulParams& params, GpuStream stream);
void multiply_bf16(const GpuMatmulParams& params, GpuStream stream);
void multiply_q8_0(const GpuMatmulParams& params, GpuStream stream);
void multiply_mxfp4(const GpuMatmulParams& params, GpuStream stream);

void embed_f32(const GpuEmbedParams& params, GpuStream stream);
void embed_f16(const GpuEmbedParams& params, GpuStream stream);
void embed_bf16(const GpuEmbedParams& params, GpuStream stream);
void embed_q8_0(const GpuEmbedParams& params, GpuStream stream);
void embed_mxfp4(const GpuEmbedParams& params, GpuStream stream);

void hidden_f32(const GpuExpertHiddenParams& params, GpuStream stream);
void hidden_f16(const GpuExpertHiddenParams& params, GpuStream stream);
void hidden_bf16(const GpuExpertHiddenParams& params, GpuStream stream);
void hidden_q8_0(const GpuExpertHiddenParams& params, GpuStream stream);
void hidden_mxfp4(const GpuExpertHiddenParams& params, GpuStream stream);

void output_f32(const GpuExpertOutputParams& params, GpuStream stream);
void output_f16(const GpuExpertOutputParams& params, GpuStream stream);
void output_bf16(const GpuExpertOutputParams& params, GpuStream stream);
void output_q8_0(const GpuExpertOutputParams& params, GpuStream stream);
void output_mxfp4(const GpuExpertOutputParams& params, GpuStream stream);

}  // namespace hearth::HEARTH_GPU
