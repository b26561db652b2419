#include "gpu_kernels/matmul/formats.h"

#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

struct Format {
  TensorType type;
  void (*multiply)(const GpuMatmulParams& params, GpuStream stream);
};
constexpr Format kFormats[] = {
    {TensorType::kF32, multiply_f32},         {TensorType::kF16, multiply_f16},
    {TensorType::kBF16, multiply_bf16},       {TensorType::kF8_E4M3, multiply_f8_e4m3},
    {TensorType::kQ4_0, multiply_q4_0},       {TensorType::kQ4_1, multiply_q4_1},
    {TensorType::kQ5_0, multiply_q5_0},       {TensorType::kQ5_1, multiply_q5_1},
    {TensorType::kQ8_0, multiply_q8_0},       {TensorType::kQ2_K, multiply_q2_k},
    {TensorType::kQ3_K, multiply_q3_k},       {TensorType::kQ4_K, multiply_q4_k},
    {TensorType::kQ5_K, multiply_q5_k},       {TensorType::kQ6_K, multiply_q6_k},
    {TensorType::kIQ2_XXS, multiply_iq2_xxs}, {TensorType::kIQ2_XS, multiply_iq2_xs},
    {TensorType::kIQ2_S, multiply_iq2_s},     {TensorType::kIQ3_XXS, multiply_iq3_xxs},
    {TensorType::kIQ3_S, multiply_iq3_s},     {TensorType::kIQ4_NL, multiply_iq4_nl},
    {TensorType::kIQ4_XS, multiply_iq4_xs},   {TensorType::kMXFP4, multiply_mxfp4},
};

const Format* find_format(TensorType type) {
  for (const Format& format : kFormats) {
    if (format.type == type) return &format;
  }
  return nullptr;
}

}  // namespace

bool multiplies(TensorType type) { return find_format(type) != nullptr; }

// Matrices of float32 are stored so for their exactness. Tiles are made of pieces of 32 columns.
bool reads_bfloat16s(const GpuMatmulParams& params) {
  return params.prefill && params.n > kFewTokensMax && params.w.type != TensorType::kF32 &&
         params.w.cols % kPieceColumns == 0;
}

void matmul(const GpuMatmulParams& params, GpuStream stream) {
  const Format* format = find_format(params.w.type);
  HEARTH_CHECK(format != nullptr);
  if (params.n == 0 || params.w.rows == 0) return;
  format->multiply(params, stream);
}

}  // namespace hearth::HEARTH_GPU
