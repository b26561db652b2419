#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

struct Format {
  TensorType type;
  void (*hidden)(const GpuExpertHiddenParams& params, GpuStream stream);
  void (*output)(const GpuExpertOutputParams& params, GpuStream stream);
};
constexpr Format kFormats[] = {
    {TensorType::kF32, hidden_f32, output_f32},       {TensorType::kF16, hidden_f16, output_f16},
    {TensorType::kBF16, hidden_bf16, output_bf16},    {TensorType::kQ8_0, hidden_q8_0, output_q8_0},
    {TensorType::kMXFP4, hidden_mxfp4, output_mxfp4},
};

const Format& find_format(TensorType type) {
  for (const Format& format : kFormats) {
    if (format.type == type) return format;
  }
  check_failed("experts are of a type that matmul knows", __FILE__, __LINE__);
}

void check_picks(const GpuPicks& p) { HEARTH_CHECK(p.picks != nullptr || p.used == 1); }

__global__ void sum_experts_kernel(GpuSumExpertsParams p) {
  const int32_t terms = p.used + 1;
  for (int64_t i = stride_begin(); i < p.n * p.dim; i += stride_step()) {
    const int64_t row = i / p.dim;
    const float* weights = p.weights + row * terms;
    const float* outputs = p.outputs + row * terms * p.dim + i % p.dim;
    const int32_t* picks = p.picks + row * p.used;
    float sum = 0;
    for (int32_t k = 0; k < p.used; ++k) {
      if (p.data[picks[k]] != nullptr) sum = fmaf(weights[k], outputs[k * p.dim], sum);
    }
    sum = fmaf(weights[p.used], outputs[p.used * p.dim], sum);
    p.out[i] = p.elsewhere != nullptr ? sum + p.elsewhere[i] : sum;
  }
}

}  // namespace

void expert_hidden(const GpuExpertHiddenParams& params, GpuStream stream) {
  if (params.picks.n * params.picks.used == 0 || params.gate.rows == 0) return;
  check_picks(params.picks);
  HEARTH_CHECK(params.gate.type == params.up.type);
  HEARTH_CHECK(params.gate.rows == params.up.rows && params.gate.cols == params.up.cols);
  find_format(params.gate.type).hidden(params, stream);
}

void expert_output(const GpuExpertOutputParams& params, GpuStream stream) {
  if (params.picks.n * params.picks.used == 0 || params.down.rows == 0) return;
  check_picks(params.picks);
  find_format(params.down.type).output(params, stream);
}

void sum_experts(const GpuSumExpertsParams& params, GpuStream stream) {
  if (params.n * params.dim == 0) return;
  launch(sum_experts_kernel, {stride_blocks(params.n * params.dim), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
