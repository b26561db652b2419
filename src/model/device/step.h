// What the steps of a layer share on a device. They read like those of model/step.h and only
// enqueue: nothing that they decide depends on what the device computes.
#pragma once

#include <cstdint>
#include <span>

#include "model/config.h"
#include "model/device/inputs.h"
#include "model/device/scratch.h"
#include "model/device/stage_meter.h"
#include "model/device/weights.h"

namespace hearth {

struct DeviceStep {
  const ModelConfig& config;
  const DeviceWeights& weights;
  const GpuKernels& kernels;
  GpuStream stream;
  DeviceScratch& act;
  const DeviceBatch& batch;
  StageMeter& meter;  // each of the functions below marks its stages

  const GpuSequenceCache* caches(int32_t layer) const {
    return batch.caches + layer * batch.sequences;
  }
};

// Rounds the first `n` rows, if they aren't yet and weights of this type read them so.
void round_rows_for(const DeviceStep& step, TensorType type, DeviceRows& x, int64_t n);
// The same to bfloat16.
void convert_rows(const DeviceStep& step, DeviceRows& x, int64_t n);
// y[y_rows[i]] = w . x[x_rows[i]], as GpuMatmulParams has them.
struct DeviceProduct {
  Matrix w;
  const int32_t* x_rows = nullptr;
  int64_t n;
  float* y;
  const int32_t* y_rows = nullptr;
  int64_t y_stride;
};

// With the first `x_count` rows, which are brought to the form that the matrix reads.
void multiply(const DeviceStep& step, const DeviceProduct& product, DeviceRows& x, int64_t x_count);
// The same for several products of as many tokens; few tokens take a launch for each type.
void multiply_all(const DeviceStep& step, std::span<const DeviceProduct> products, DeviceRows& x,
                  int64_t x_count);
// y [n, y_stride] = w . x for the first n rows.
void multiply(const DeviceStep& step, const Matrix& w, DeviceRows& x, int64_t n, float* y,
              int64_t y_stride);

// Streams of the tokens, unless they came with the step, and the rotations that follow from the
// rows' positions.
void embed(const DeviceStep& step);
// Coefficients and input of a sub-layer: act.x = RMSNorm(sum_n pre[n] h[n]).
void enter_hyper_connection(const DeviceStep& step, const DeviceHyper& weights, const float* norm);
// h'[k] = post[k] y + sum_j C[j, k] h[j], y being act.output.
void leave_hyper_connection(const DeviceStep& step);
// act.logits [wanted, vocab].
void head(const DeviceStep& step);

void attention(const DeviceStep& step, int32_t layer);
// Fills act.selected from act.index_q and act.index_weights.
void select_entries(const DeviceStep& step, int32_t layer);

void route(const DeviceStep& step, const DeviceMoe& weights);
// The shared expert and those in the device's memory, to act.expert_out. What the latter read
// depends on the picks, so it isn't counted here.
void experts(const DeviceStep& step, int32_t layer, const DeviceMoe& weights,
             const DeviceExperts& routed);
// Of the routed experts only those in this memory, to act.expert_out; the others' rows stay.
void routed_experts(const DeviceStep& step, int32_t layer, const DeviceExperts& routed);
// act.output, with the sums that came from elsewhere [n, dim], or null for none.
void sum_experts(const DeviceStep& step, const DeviceExperts& routed, const float* elsewhere);

}  // namespace hearth
