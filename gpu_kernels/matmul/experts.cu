#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

Format format_of(TensorType type) {
  const Format format = find_format(type);
  HEARTH_CHECK(format.hidden != nullptr && format.output != nullptr);
  return format;
}

bool reads_bfloat16s_of(const GpuExpertMatrices& w, int64_t n) {
  GpuMatmulParams one = {};
  one.w = {w.type, w.rows, w.cols, nullptr};
  one.n = n;
  one.prefill = true;
  return reads_bfloat16s(one);
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

// Weights are unpacked once a tile, so small tiles are for experts of few picks. A large tile that
// is not half full costs more than two small ones.
int32_t expert_tile_size(const GpuPicks& picks, const GpuExpertMatrices& gate,
                         const GpuExpertMatrices& down) {
  if (!reads_bfloat16s_of(gate, picks.n) || !reads_bfloat16s_of(down, picks.n)) {
    return kGpuTilePicks;
  }
  const int64_t of_expert = picks.n * picks.used / picks.experts;
  if (of_expert <= kGpuTilePicks) return kGpuTilePicks;
  return of_expert <= kManyTokens / 2 ? kManyTokensLeast : kManyTokens;
}

void expert_hidden(const GpuExpertHiddenParams& params, GpuStream stream) {
  if (params.picks.n * params.picks.used == 0 || params.gate.rows == 0) return;
  check_picks(params.picks);
  HEARTH_CHECK(params.gate.type == params.up.type);
  HEARTH_CHECK(params.gate.rows == params.up.rows && params.gate.cols == params.up.cols);
  format_of(params.gate.type).hidden(params, stream);
}

void expert_output(const GpuExpertOutputParams& params, GpuStream stream) {
  if (params.picks.n * params.picks.used == 0 || params.down.rows == 0) return;
  check_picks(params.picks);
  format_of(params.down.type).output(params, stream);
}

void sum_experts(const GpuSumExpertsParams& params, GpuStream stream) {
  if (params.n * params.dim == 0) return;
  launch(sum_experts_kernel, {stride_blocks(params.n * params.dim), kBlockThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
