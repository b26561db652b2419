// What a format's source makes its functions of.
#pragma once

#include "gpu_kernels/matmul/embed.h"
#include "gpu_kernels/matmul/experts.h"
#include "gpu_kernels/matmul/few.h"
#include "gpu_kernels/matmul/formats.h"
#include "gpu_kernels/matmul/many.h"
#include "gpu_kernels/matmul/many_experts.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {

template <typename F>
void multiply(const GpuMatmulParams* products, int32_t count, GpuStream stream) {
  if constexpr (F::kIsRounded) {
    if (reads_bfloat16s(products[0])) {
      for (int32_t i = 0; i < count; ++i) {
        if (products[i].w.rows > 0) multiply_many<F>(products[i], stream);
      }
      return;
    }
  }
  multiply_few<F>(products, count, stream);
}

template <typename F>
void hidden_of_experts(const GpuExpertHiddenParams& params, GpuStream stream) {
  if constexpr (F::kIsRounded) {
    if (params.picks.tile_size > kGpuTilePicks) return many_hidden_of_experts<F>(params, stream);
  }
  HEARTH_CHECK(params.picks.tile_size == kGpuTilePicks);
  few_hidden_of_experts<F>(params, stream);
}

template <typename F>
void output_of_experts(const GpuExpertOutputParams& params, GpuStream stream) {
  if constexpr (F::kIsRounded) {
    if (params.picks.tile_size > kGpuTilePicks) return many_output_of_experts<F>(params, stream);
  }
  HEARTH_CHECK(params.picks.tile_size == kGpuTilePicks);
  few_output_of_experts<F>(params, stream);
}

template <typename F>
Format make_format() {
  return {multiply<F>, embed_rows<F>, hidden_of_experts<F>, output_of_experts<F>};
}

}  // namespace hearth::HEARTH_GPU
