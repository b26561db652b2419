// Where streams begin, what mixes them around a sub-layer, and what the head reads of them.
#include "model/device/step.h"

namespace hearth {
namespace {

void fill_angles(const DeviceStep& step, const double* frequencies, int32_t ratio,
                 const DeviceAngles& angles) {
  step.kernels.rope_angles({.rows = step.batch.rows,
                            .frequencies = frequencies,
                            .n = step.batch.n,
                            .pairs = step.config.rope_dim / 2,
                            .ratio = ratio,
                            .cosines = angles.cosines,
                            .sines = angles.sines},
                           step.stream);
}

// Whether mixes come in parts: few rows take the whole device then.
bool has_parts(const DeviceStep& step, const DeviceHyper& weights) {
  return !step.batch.prefill && weights.fn.type == TensorType::kF32;
}

// mixes = fn . streams, of the rows listed or of the first n; the norm comes with what reads them.
void project_streams(const DeviceStep& step, const DeviceHyper& weights, const int32_t* rows,
                     int64_t n) {
  if (has_parts(step, weights)) {
    count_product(step.meter.totals(), weights.fn.type, weights.fn.rows, weights.fn.cols, n);
    step.kernels.project_streams({.fn = weights.fn,
                                  .streams = step.act.streams.values,
                                  .rows = rows,
                                  .n = n,
                                  .parts = step.act.mix_parts},
                                 step.stream);
    return;
  }
  multiply(step,
           {.w = weights.fn,
            .x_rows = rows,
            .n = n,
            .y = step.act.mixes,
            .y_rows = rows,
            .y_stride = weights.fn.rows},
           step.act.streams, step.batch.n);
}

// What mixed streams become: rounded too, where their width allows it.
void mix_streams(const DeviceStep& step, const DeviceHyper& weights, const float* norm,
                 const int32_t* rows, int64_t n, float* coefficients, DeviceRows& x) {
  const ModelConfig& config = step.config;
  step.kernels.enter_hyper({.streams = step.act.streams.values,
                            .mixes = step.act.mixes,
                            .parts = has_parts(step, weights) ? step.act.mix_parts : nullptr,
                            .rows = rows,
                            .scale = weights.scale,
                            .base = weights.base,
                            .gain = norm,
                            .n = n,
                            .stream_count = config.streams,
                            .dim = config.dim,
                            .sinkhorn_iterations = config.sinkhorn_iterations,
                            .hyper_eps = config.hyper_eps,
                            .rms_eps = config.rms_eps,
                            .coefficients = coefficients,
                            .x = x.fresh().values,
                            .xq = x.rounded},
                           step.stream);
  x.is_rounded = x.rounded.codes != nullptr;
}

}  // namespace

void embed(const DeviceStep& step) {
  step.meter.mark(Stage::kEmbedding);
  const Matrix& rows = step.batch.embeddings;
  float* streams = step.act.streams.fresh().values;
  if (rows.rows > 0) {
    step.meter.totals().bytes += rows.rows * row_bytes(rows.type, rows.cols);
    step.kernels.embed({.table = rows,
                        .tokens = nullptr,
                        .n = step.batch.n,
                        .streams = step.config.streams,
                        .out = streams},
                       step.stream);
  }
  const double* compressed = step.weights.compressed_frequencies;
  fill_angles(step, step.weights.plain_frequencies, 1, step.act.plain_angles);
  fill_angles(step, compressed, 1, step.act.compressed_angles);
  fill_angles(step, compressed, static_cast<int32_t>(LayerKind::kCsa), step.act.csa_angles);
  fill_angles(step, compressed, static_cast<int32_t>(LayerKind::kHca), step.act.hca_angles);
}

void enter_hyper_connection(const DeviceStep& step, const DeviceHyper& weights, const float* norm) {
  step.meter.mark(Stage::kHyperConnection);
  project_streams(step, weights, nullptr, step.batch.n);
  mix_streams(step, weights, norm, nullptr, step.batch.n, step.act.coefficients, step.act.x);
}

void leave_hyper_connection(const DeviceStep& step) {
  step.meter.mark(Stage::kHyperConnection);
  float* streams = step.act.streams.fresh().values;
  step.kernels.leave_hyper({.streams = streams,
                            .output = step.act.output,
                            .coefficients = step.act.coefficients,
                            .n = step.batch.n,
                            .stream_count = step.config.streams,
                            .dim = step.config.dim,
                            .next = streams},
                           step.stream);
}

void head(const DeviceStep& step) {
  step.meter.mark(Stage::kHead);
  const DeviceWeights& weights = step.weights;
  const int64_t n = step.batch.wanted;
  project_streams(step, weights.head_hyper, step.batch.wanted_rows, n);
  mix_streams(step, weights.head_hyper, weights.head_norm, step.batch.wanted_rows, n, nullptr,
              step.act.head_x);
  multiply(step, weights.output, step.act.head_x, n, step.act.logits, step.config.vocab);
}

}  // namespace hearth
