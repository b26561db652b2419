// The weight formats, each in a source of its own.
#pragma once

#include "gpu_kernels/gpu_kernels.h"

namespace hearth::HEARTH_GPU {

// What there is of a format.
struct Format {
  void (*multiply)(const GpuMatmulParams* products, int32_t count, GpuStream stream);
  void (*embed)(const GpuEmbedParams& params, GpuStream stream);
  void (*hidden)(const GpuExpertHiddenParams& params, GpuStream stream);
  void (*output)(const GpuExpertOutputParams& params, GpuStream stream);
};

// Nulls for a type that is none of these.
Format find_format(TensorType type);

Format format_f32();
Format format_f16();
Format format_bf16();
Format format_f8_e4m3();
Format format_q4_0();
Format format_q4_1();
Format format_q5_0();
Format format_q5_1();
Format format_q8_0();
Format format_q2_k();
Format format_q3_k();
Format format_q4_k();
Format format_q5_k();
Format format_q6_k();
Format format_iq2_xxs();
Format format_iq2_xs();
Format format_iq2_s();
Format format_iq3_xxs();
Format format_iq3_s();
Format format_iq4_nl();
Format format_iq4_xs();
Format format_mxfp4();

}  // namespace hearth::HEARTH_GPU
