// Manifold-constrained hyper-connections: every sub-layer reads a mix of the residual streams and
// writes back through a doubly stochastic matrix (Sinkhorn-Knopp).
#include <algorithm>
#include <cmath>

#include "model/step.h"

namespace hearth {
namespace {

constexpr int64_t kRowsOfThread = 16;  // normed and multiplied together: a megabyte of Flash's

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// Rows and columns of c [n, n] scaled in turn until both sum to about one.
void sinkhorn(float* c, int32_t n, int32_t iterations, float eps) {
  auto scale_columns = [&] {
    for (int32_t col = 0; col < n; ++col) {
      float sum = eps;
      for (int32_t row = 0; row < n; ++row) sum += c[row * n + col];
      for (int32_t row = 0; row < n; ++row) c[row * n + col] /= sum;
    }
  };
  scale_columns();
  for (int32_t iteration = 1; iteration < iterations; ++iteration) {
    for (int32_t row = 0; row < n; ++row) {
      float sum = eps;
      for (int32_t col = 0; col < n; ++col) sum += c[row * n + col];
      for (int32_t col = 0; col < n; ++col) c[row * n + col] /= sum;
    }
    scale_columns();
  }
}

// Softmax of each row, plus eps.
void softmax_rows(float* c, int32_t n, float eps) {
  for (int32_t row = 0; row < n; ++row, c += n) {
    const float largest = *std::max_element(c, c + n);
    float sum = 0;
    for (int32_t col = 0; col < n; ++col) sum += c[col] = std::exp(c[col] - largest);
    for (int32_t col = 0; col < n; ++col) c[col] = c[col] / sum + eps;
  }
}

// One row's mixes [(2 + N) N] to its coefficients: pre [N], then for each new stream k: C[0 .. N-1,
// k], post[k].
void coefficients_of_row(const ModelConfig& config, const HyperWeights& weights, const float* mixes,
                         float* out) {
  const int32_t n = config.streams;
  auto mix = [&](int32_t i, int32_t part) {
    return mixes[i] * weights.scale[part] + weights.base[i];
  };
  float* c = out + n;  // [n, n] while it is balanced, spread out below
  for (int32_t i = 0; i < n; ++i) out[i] = sigmoid(mix(i, 0)) + config.hyper_eps;
  for (int32_t i = 0; i < n * n; ++i) c[i] = mix(2 * n + i, 2);
  softmax_rows(c, n, config.hyper_eps);
  sinkhorn(c, n, config.sinkhorn_iterations, config.hyper_eps);

  float balanced[kStreamsMax * kStreamsMax];
  std::copy(c, c + n * n, balanced);
  for (int32_t k = 0; k < n; ++k) {
    float* new_stream = out + n + k * (n + 1);
    for (int32_t j = 0; j < n; ++j) new_stream[j] = balanced[j * n + k];
    new_stream[n] = 2 * sigmoid(mix(n + k, 1));
  }
}

// streams_normed = rms(streams), rows begin .. end - 1.
void norm_streams(const Step& step, int64_t begin, int64_t end) {
  const int64_t width = static_cast<int64_t>(step.config.streams) * step.config.dim;
  float* normed = step.act.streams_normed.rows().values;
  for (int64_t row = begin; row < end; ++row) {
    step.compute.kernels.rms_norm(step.act.streams_row(static_cast<int32_t>(row)), nullptr,
                                  step.config.rms_eps, 1, width, normed + row * width);
  }
}

// mixes [n, weights.fn.rows] = fn . rms(streams). Of many float rows each thread norms and
// multiplies a few at a time, which so stay in its cache; of few rows the threads share the matrix
// instead.
void project_streams(Step& step, StageTotals& totals, const HyperWeights& weights) {
  Compute& compute = step.compute;
  const int64_t n = step.batch.n();
  ActivationRows& normed = step.act.streams_normed.fresh();
  const Product product{weights.fn,     &normed, nullptr, n, step.act.mixes.as<float>(),
                        weights.fn.rows};
  const bool is_rounded = reads_rounded(compute.kernels, weights.fn, compute.prefill);
  if (is_rounded || n < kRowsOfThread * compute.workers.threads()) {
    compute.workers.for_range(
        n, 1, [&](int64_t begin, int64_t end, int) { norm_streams(step, begin, end); });
    round_rows_for(compute, weights.fn, normed, n);
    multiply(compute, totals, {&product, 1});
    return;
  }
  count_work(totals, {&product, 1});
  compute.workers.for_range(n, kRowsOfThread, [&](int64_t begin, int64_t end, int) {
    norm_streams(step, begin, end);
    multiply_rows(compute, product, begin, end);
  });
}

// out = RMSNorm(sum_n pre[n] h[n]).
void mix_streams(const Step& step, int32_t row, const float* pre, const Vector& norm, float* out) {
  const ModelConfig& config = step.config;
  const Kernels& kernels = step.compute.kernels;
  kernels.weighted_sum(step.act.streams_row(row), config.dim, pre, config.streams, config.dim, out);
  kernels.rms_norm(out, norm.data(), config.rms_eps, 1, config.dim, out);
}

}  // namespace

void enter_hyper_connection(Step& step, const HyperWeights& weights, const Vector& norm) {
  StageTotals& totals = step.compute.clock[Stage::kHyperConnection];
  const StageTimer timer(totals);
  project_streams(step, totals, weights);
  float* x = step.act.x.fresh().values;
  step.compute.workers.for_range(step.batch.n(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* coefficients = step.act.coefficients.as<float>() + row * step.act.coefficients_stride;
      coefficients_of_row(step.config, weights, step.act.mixes.as<float>() + row * weights.fn.rows,
                          coefficients);
      mix_streams(step, static_cast<int32_t>(row), coefficients, norm, x + row * step.config.dim);
    }
  });
}

void leave_hyper_connection(Step& step) {
  const StageTimer timer(step.compute.clock[Stage::kHyperConnection]);
  const int32_t streams = step.config.streams;
  const int64_t dim = step.config.dim;
  Activations& act = step.act;
  step.compute.workers.for_range(step.batch.n(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* weights = act.coefficients.as<float>() + row * act.coefficients_stride + streams;
      float* next = act.next_streams.as<float>() + row * act.streams_stride;
      for (int32_t k = 0; k < streams; ++k) {
        step.compute.kernels.weighted_sum(act.streams_row(static_cast<int32_t>(row)), dim,
                                          weights + k * (streams + 1), streams + 1, dim,
                                          next + k * dim);
      }
    }
  });
  std::swap(act.streams, act.next_streams);
}

void mix_head_streams(Step& step, const HyperWeights& weights, const Vector& norm,
                      std::span<const int32_t> rows) {
  StageTotals& totals = step.compute.clock[Stage::kHead];
  project_streams(step, totals, weights);
  float* x = step.act.head_x.fresh().values;
  for (size_t i = 0; i < rows.size(); ++i) {
    const float* mixes = step.act.mixes.as<float>() + rows[i] * weights.fn.rows;
    float pre[kStreamsMax];
    for (int32_t s = 0; s < step.config.streams; ++s) {
      pre[s] = sigmoid(mixes[s] * weights.scale[0] + weights.base[s]) + step.config.hyper_eps;
    }
    mix_streams(step, rows[i], pre, norm, x + i * step.config.dim);
  }
}

}  // namespace hearth
