#include "gpu_kernels/matmul/formats.h"

#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

struct Named {
  TensorType type;
  Format (*format)();
};
constexpr Named kFormats[] = {
    {TensorType::kF32, format_f32},         {TensorType::kF16, format_f16},
    {TensorType::kBF16, format_bf16},       {TensorType::kF8_E4M3, format_f8_e4m3},
    {TensorType::kQ4_0, format_q4_0},       {TensorType::kQ4_1, format_q4_1},
    {TensorType::kQ5_0, format_q5_0},       {TensorType::kQ5_1, format_q5_1},
    {TensorType::kQ8_0, format_q8_0},       {TensorType::kQ2_K, format_q2_k},
    {TensorType::kQ3_K, format_q3_k},       {TensorType::kQ4_K, format_q4_k},
    {TensorType::kQ5_K, format_q5_k},       {TensorType::kQ6_K, format_q6_k},
    {TensorType::kIQ2_XXS, format_iq2_xxs}, {TensorType::kIQ2_XS, format_iq2_xs},
    {TensorType::kIQ2_S, format_iq2_s},     {TensorType::kIQ3_XXS, format_iq3_xxs},
    {TensorType::kIQ3_S, format_iq3_s},     {TensorType::kIQ4_NL, format_iq4_nl},
    {TensorType::kIQ4_XS, format_iq4_xs},   {TensorType::kMXFP4, format_mxfp4},
};

}  // namespace

Format find_format(TensorType type) {
  for (const Named& named : kFormats) {
    if (named.type == type) return named.format();
  }
  return {};
}

bool multiplies(TensorType type) { return find_format(type).multiply != nullptr; }

}  // namespace hearth::HEARTH_GPU
