// What a GPU takes for a piece of work. Its memory and its tensor cores are those of its profile;
// how much of them the kernels reach follows from the tables in gpu_kernels/README.md alone, which
// an H200 measured kernel by kernel.
//
// With few tokens a kernel is bound by memory, or by the instructions that unpack and multiply: a
// number of bytes a processor and cycle for each format, so that many fast processors on a slower
// memory leave memory as the bound. With the many tokens of a prompt it reaches a share of the
// tensor cores.
#pragma once

#include <cstdint>
#include <vector>

#include "offload/machine/machine.h"
#include "offload/plan/cpu_rates.h"
#include "offload/plan/model_shape.h"

namespace hearth {

// What a batch's tokens do with the cache of a layer, all together.
struct AttentionWork {
  int32_t ratio;  // the layer's
  double tokens;
  double attention_flops;
  double index_flops;  // 0 where every compressed row is read
  double scores;       // that the best are chosen from
};

class GpuRates {
 public:
  explicit GpuRates(const Gpu& gpu) : gpu_(gpu) {}

  // Seconds of products beside the starts of their kernels: of matrices with all of a batch's
  // tokens, and of experts with the tokens that picked each, on average. `prompt`: on tensor cores
  // where there are enough of them. `arithmetic` counts what instructions bound, too.
  BoundSeconds multiply(const std::vector<MatrixUse>& uses, double tokens, bool prompt) const;
  BoundSeconds multiply_experts(const std::vector<MatrixUse>& uses, double tokens,
                                bool prompt) const;

  // Attention of a layer, index scores and the choice of the best of them; with the starts of their
  // kernels, which layer_kernels() leaves out.
  double attend(const AttentionWork& work, bool prompt) const;

  // Values that pass through memory between products: read and written.
  double pass(double bytes) const;

  // From the start of one kernel to that of the next with nothing between them, and what small ones
  // take: of a layer of this ratio beside its attention, and of what comes before and after layers.
  double layer_kernels(int32_t ratio, bool prompt) const;
  double head_kernels(bool prompt) const;

 private:
  double cycles(double count) const;  // seconds of one processor
  double kernel(bool prompt) const;   // seconds
  BoundSeconds multiply_few(const std::vector<MatrixUse>& uses, double tokens) const;
  // Up to `narrow_most` tokens take narrow tiles, which then hold `in_narrow`; more take wide ones.
  BoundSeconds multiply_prompt(const std::vector<MatrixUse>& uses, double tokens,
                               double narrow_most, double in_narrow, double in_wide) const;
  // `tokens` of whole tiles, `share` of the tensor cores.
  BoundSeconds multiply_tiles(const std::vector<MatrixUse>& uses, double tokens,
                              double share) const;

  const Gpu& gpu_;
};

}  // namespace hearth
