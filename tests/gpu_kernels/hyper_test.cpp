// Entering and leaving hyper-connections, against plain loops in double.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "gpu_kernels/gpu.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

namespace {

constexpr double kHyperEps = 1e-3, kRmsEps = 1e-2;  // large enough that leaving one out shows

Floats random_floats(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats values(n);
  for (float& value : values) value = normal(random);
  return values;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Divides each row by eps and its sum, or each column.
void scale_lines(Doubles& c, int n, bool columns) {
  for (int i = 0; i < n; ++i) {
    double sum = kHyperEps;
    auto at = [&](int j) -> double& { return columns ? c[j * n + i] : c[i * n + j]; };
    for (int j = 0; j < n; ++j) sum += at(j);
    for (int j = 0; j < n; ++j) at(j) /= sum;
  }
}

struct Hyper {
  Hyper(int64_t row_count, int stream_count, int64_t width, bool head)
      : n(row_count),
        size(stream_count),
        dim(width),
        is_head(head),
        mixes_of_row(size * (head ? 1 : 2 + size)),
        streams(random_floats(n * size * dim, 1, 2)),
        mixes(random_floats(n * mixes_of_row, 2, 4)),
        scale(random_floats(head ? 1 : 3, 3)),
        base(random_floats(mixes_of_row, 4)),
        gain(random_floats(dim, 5)) {}

  double factor(const float* x, int64_t count) const {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
    return 1 / std::sqrt(sum / static_cast<double>(count) + kRmsEps);
  }
  double mix(int64_t row, int i, int part) const {
    return mixes[row * mixes_of_row + i] * factor(&streams[row * size * dim], size * dim) *
               scale[part] +
           base[i];
  }
  void enter(int64_t row, Floats& x, Floats& coefficients) const {
    Floats mixed(dim);
    Doubles shares(size);
    for (int s = 0; s < size; ++s) shares[s] = sigmoid(mix(row, s, 0)) + kHyperEps;
    for (int64_t d = 0; d < dim; ++d) {
      double sum = 0;
      for (int s = 0; s < size; ++s) sum += shares[s] * streams[(row * size + s) * dim + d];
      mixed[d] = static_cast<float>(sum);
    }
    const double norm = factor(mixed.data(), dim);
    for (int64_t d = 0; d < dim; ++d) x.push_back(static_cast<float>(mixed[d] * norm * gain[d]));
    if (is_head) return;
    Doubles c(size * size);
    for (int r = 0; r < size; ++r) {
      double sum = 0;
      for (int i = 0; i < size; ++i)
        sum += c[r * size + i] = std::exp(mix(row, 2 * size + r * size + i, 2));
      for (int i = 0; i < size; ++i) c[r * size + i] = c[r * size + i] / sum + kHyperEps;
    }
    scale_lines(c, size, true);
    for (int i = 1; i < iterations; ++i) {
      scale_lines(c, size, false);
      scale_lines(c, size, true);
    }
    for (int k = 0; k < size; ++k) {
      for (int j = 0; j < size; ++j) coefficients.push_back(static_cast<float>(c[j * size + k]));
      coefficients.push_back(static_cast<float>(2 * sigmoid(mix(row, size + k, 1))));
    }
  }
  GpuEnterHyperParams upload(Gpu& gpu) const {
    GpuEnterHyperParams p = {};
    p.streams = gpu.upload(streams);
    p.mixes = gpu.upload(mixes);
    p.scale = gpu.upload(scale);
    p.base = gpu.upload(base);
    p.gain = gpu.upload(gain);
    p.n = n;
    p.stream_count = size;
    p.dim = dim;
    p.sinkhorn_iterations = iterations;
    p.hyper_eps = kHyperEps;
    p.rms_eps = kRmsEps;
    p.x = gpu.allocate<float>(n * dim);
    if (!is_head) p.coefficients = gpu.allocate<float>(n * size * (size + 1));
    return p;
  }

  int64_t n;
  int size;
  int64_t dim;
  bool is_head;
  int64_t mixes_of_row;
  int iterations = 4;
  Floats streams, mixes, scale, base, gain;
};

}  // namespace

TEST_CASE("enter_hyper: coefficients and input, of any number of streams") {
  for (const int size : {1, 2, 4, 5, 16}) {
    for (const int64_t dim : {4, 96, 2560}) {
      const Hyper hyper(dim == 2560 ? 1 : 3, size, dim, false);
      Floats x, coefficients;
      for (int64_t row = 0; row < hyper.n; ++row) hyper.enter(row, x, coefficients);
      for (const uint64_t seed : {0, 1}) {
        CAPTURE(size);
        CAPTURE(dim);
        Gpu gpu(seed);
        const GpuEnterHyperParams p = hyper.upload(gpu);
        gpu.kernels().enter_hyper(p, gpu.stream());
        CHECK(max_difference(x, gpu.download(p.x, x.size())) < 1e-5);
        CHECK(max_difference(coefficients, gpu.download(p.coefficients, coefficients.size())) <
              2e-6);
      }
    }
  }
}

TEST_CASE("project_streams: parts of mixes, which enter_hyper adds") {
  for (const bool is_head : {false, true}) {
    for (const int size : {1, 4, 5, 16}) {
      for (const int64_t dim : {4, 96, 2560}) {
        CAPTURE(is_head);
        CAPTURE(size);
        CAPTURE(dim);
        Hyper hyper(3, size, dim, is_head);
        const int64_t width = size * dim, splits = (width + kGpuMixColumns - 1) / kGpuMixColumns;
        const int64_t count = hyper.mixes_of_row;
        const Floats fn = random_floats(count * width, 6, 1 / std::sqrt(static_cast<float>(width)));
        for (int64_t i = 0; i < 3 * count; ++i) {
          double sum = 0;
          for (int64_t d = 0; d < width; ++d)
            sum += static_cast<double>(fn[i % count * width + d]) *
                   hyper.streams[i / count * width + d];
          hyper.mixes[i] = static_cast<float>(sum);
        }
        const std::vector<int32_t> rows = {2, 0};
        Gpu gpu(dim);
        GpuEnterHyperParams p = hyper.upload(gpu);
        p.rows = gpu.upload(rows);
        p.n = 2;
        p.mixes = nullptr;
        float* parts = gpu.allocate<float>(3 * splits * (count + 1));
        p.parts = parts;
        const auto* data = reinterpret_cast<const unsigned char*>(gpu.upload(fn));
        gpu.kernels().project_streams({.fn = {TensorType::kF32, count, width, data},
                                       .streams = p.streams,
                                       .rows = p.rows,
                                       .n = 2,
                                       .parts = parts},
                                      gpu.stream());
        gpu.kernels().enter_hyper(p, gpu.stream());
        Floats x, coefficients;
        for (const int32_t row : rows) hyper.enter(row, x, coefficients);
        CHECK(max_difference(x, gpu.download(p.x, x.size())) < 1e-5);
        if (is_head) continue;
        CHECK(max_difference(coefficients, gpu.download(p.coefficients, coefficients.size())) <
              4e-6);
      }
    }
  }
}

TEST_CASE("enter_hyper of the head mixes the rows it is given") {
  const Hyper hyper(5, 4, 160, true);
  const std::vector<int32_t> rows = {4, 0, 3};
  Floats x, none;
  for (const int32_t row : rows) hyper.enter(row, x, none);
  Gpu gpu(2);
  GpuEnterHyperParams p = hyper.upload(gpu);
  p.rows = gpu.upload(rows);
  p.n = std::ssize(rows);
  gpu.kernels().enter_hyper(p, gpu.stream());
  CHECK(max_difference(x, gpu.download(p.x, x.size())) < 1e-5);
}

TEST_CASE("enter_hyper rounds its input as quantize does") {
  for (const int64_t dim : {32, 2144}) {
    const Hyper hyper(2, 4, dim, false);
    Gpu gpu(3);
    GpuEnterHyperParams p = hyper.upload(gpu);
    const int64_t count = hyper.n * dim;
    auto rounded = [&] {
      return GpuRoundedRows{gpu.allocate<int8_t>(count), gpu.allocate<float>(count / 32),
                            gpu.allocate<float>(count / 16)};
    };
    p.xq = rounded();
    const GpuRoundedRows expected = rounded();
    gpu.kernels().enter_hyper(p, gpu.stream());
    gpu.kernels().quantize({p.x, hyper.n, dim, expected}, gpu.stream());
    CHECK(gpu.download(p.xq.codes, count) == gpu.download(expected.codes, count));
    CHECK(gpu.download(p.xq.scales, count / 32) == gpu.download(expected.scales, count / 32));
    CHECK(gpu.download(p.xq.sums, count / 16) == gpu.download(expected.sums, count / 16));
  }
}

TEST_CASE("leave_hyper: every new stream of all old ones and the output, also in place") {
  const int64_t n = 3, dim = 333;
  for (const int size : {1, 3, 4, 7, 16}) {
    CAPTURE(size);
    const Floats streams = random_floats(n * size * dim, 1), output = random_floats(n * dim, 2),
                 coefficients = random_floats(n * size * (size + 1), 3);
    Floats expected;
    for (int64_t row = 0; row < n; ++row) {
      for (int k = 0; k < size; ++k) {
        const float* c = &coefficients[(row * size + k) * (size + 1)];
        for (int64_t d = 0; d < dim; ++d) {
          double sum = static_cast<double>(c[size]) * output[row * dim + d];
          for (int j = 0; j < size; ++j)
            sum += static_cast<double>(c[j]) * streams[(row * size + j) * dim + d];
          expected.push_back(static_cast<float>(sum));
        }
      }
    }
    Gpu gpu(size);
    float* old = gpu.upload(streams);
    float* next = gpu.allocate<float>(streams.size());
    GpuLeaveHyperParams p = {old, gpu.upload(output), gpu.upload(coefficients), n, size, dim, next};
    gpu.kernels().leave_hyper(p, gpu.stream());
    CHECK(max_difference(expected, gpu.download(next, expected.size())) < 5e-6);
    CHECK(gpu.download(old, streams.size()) == streams);
    p.next = old;
    gpu.kernels().leave_hyper(p, gpu.stream());
    CHECK(gpu.download(old, streams.size()) == gpu.download(next, streams.size()));
  }
}

TEST_CASE("hyper-connections of no rows do nothing") {
  Gpu gpu;
  gpu.kernels().enter_hyper({}, gpu.stream());
  gpu.kernels().leave_hyper({}, gpu.stream());
}
