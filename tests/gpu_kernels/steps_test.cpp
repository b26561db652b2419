// Every step of the table but the matrix products, against the CPU's reference table.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cpu_kernels/registry.h"
#include "format/dequantize.h"
#include "gpu_kernels/gpu.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;
using Floats = std::vector<float>;

namespace {

const Kernels& reference() { return choose_kernels("reference"); }

Floats random_floats(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats values(n);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace

TEST_CASE("rms_norm: widths of any kind, with and without gain, in place") {
  for (const int64_t k : {1, 7, 33, 255, 256, 1000}) {
    Gpu gpu(k);
    const Floats x = random_floats(3 * k, 1), gain = random_floats(k, 2);
    Floats expected(3 * k);
    reference().rms_norm(x.data(), gain.data(), 1e-6f, 3, k, expected.data());
    float* y = gpu.allocate<float>(3 * k);
    gpu.kernels().rms_norm({gpu.upload(x), gpu.upload(gain), 1e-6f, 3, k, y, {}}, gpu.stream());
    CHECK(max_difference(expected, gpu.download(y, 3 * k)) < 2e-6);

    reference().rms_norm(x.data(), nullptr, 1e-6f, 3, k, expected.data());
    float* in_place = gpu.upload(x);
    gpu.kernels().rms_norm({in_place, nullptr, 1e-6f, 3, k, in_place, {}}, gpu.stream());
    CHECK(max_difference(expected, gpu.download(in_place, 3 * k)) < 2e-6);
  }
}

TEST_CASE("rms_norm rounds its results as quantize does") {
  for (const int64_t k : {32, 96, 1024, 2080}) {
    const int64_t n = 2;
    Gpu gpu(k);
    const auto take = [&] {
      return GpuRoundedRows{gpu.allocate<int8_t>(n * k), gpu.allocate<float>(n * k / 32),
                            gpu.allocate<float>(n * k / 16)};
    };
    const GpuRoundedRows rounded = take(), expected = take();
    float* y = gpu.upload(random_floats(n * k, 1));
    float* plain = gpu.upload(random_floats(n * k, 1));
    const float* gain = gpu.upload(random_floats(k, 2));
    gpu.kernels().rms_norm({y, gain, 1e-6f, n, k, y, rounded}, gpu.stream());
    gpu.kernels().rms_norm({plain, gain, 1e-6f, n, k, plain, {}}, gpu.stream());
    CHECK(max_difference(gpu.download(plain, n * k), gpu.download(y, n * k)) < 2e-6);
    gpu.kernels().quantize({y, n, k, expected}, gpu.stream());
    CHECK(gpu.download(rounded.codes, n * k) == gpu.download(expected.codes, n * k));
    CHECK(gpu.download(rounded.scales, n * k / 32) == gpu.download(expected.scales, n * k / 32));
    CHECK(gpu.download(rounded.sums, n * k / 16) == gpu.download(expected.sums, n * k / 16));
  }
}

TEST_CASE("rms_norm of zeros is zeros") {
  Gpu gpu;
  float* x = gpu.upload(Floats(4, 0.0f));
  gpu.kernels().rms_norm({x, nullptr, 1e-6f, 1, 4, x, {}}, gpu.stream());
  CHECK(gpu.download(x, 4) == Floats(4, 0.0f));
}

TEST_CASE("rope turns the trailing pairs of every token by its own angles, and back") {
  const int32_t n = 5, heads = 3, dim = 20, rope_dim = 8;
  Gpu gpu(1);
  const Floats x = random_floats(n * heads * dim, 3);
  Floats cosines, sines;
  for (int i = 0; i < n * rope_dim / 2; ++i) {
    cosines.push_back(std::cos(0.3f * static_cast<float>(i)));
    sines.push_back(std::sin(0.3f * static_cast<float>(i)));
  }
  Floats expected = x;
  for (int i = 0; i < n; ++i) {
    reference().rope({expected.data() + i * heads * dim, heads, dim, rope_dim,
                      cosines.data() + i * rope_dim / 2, sines.data() + i * rope_dim / 2});
  }
  float* y = gpu.upload(x);
  GpuRopeParams p = {y, n, heads, dim, rope_dim, gpu.upload(cosines), gpu.upload(sines), false};
  gpu.kernels().rope(p, gpu.stream());
  CHECK(max_difference(expected, gpu.download(y, x.size())) < 1e-6);
  p.inverse = true;
  gpu.kernels().rope(p, gpu.stream());
  CHECK(max_difference(x, gpu.download(y, x.size())) < 1e-6);
}

TEST_CASE("activations are rounded to the same bits as on the CPU") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const int64_t n = 5, k = 1056;
  Floats x(n * k);
  for (size_t i = 0; i < x.size(); ++i) {
    const int kind = static_cast<int>(i / 32 % 8);
    // Widely different blocks: ties, zeros, values too small to scale, huge ones.
    const float sizes[8] = {1, 1e-3f, 1e30f, 1e-35f, 1e-37f, 1e-44f, 0, 1};
    x[i] = kind == 7 ? static_cast<float>(random() % 255) * 0.5f - 63.5f
                     : normal(random) * sizes[kind];
    if (kind == 7 && i % 32 == 5) x[i] = 127.0f;
  }
  std::vector<int8_t> codes(n * k);
  Floats scales(n * k / 32), sums(n * k / 16);
  reference().quantize(x.data(), n, k, {codes.data(), scales.data(), sums.data(), nullptr, 0});
  Gpu gpu(4);
  const GpuRoundedRows out = {gpu.allocate<int8_t>(n * k), gpu.allocate<float>(n * k / 32),
                              gpu.allocate<float>(n * k / 16)};
  gpu.kernels().quantize({gpu.upload(x), n, k, out}, gpu.stream());
  CHECK(gpu.download(out.codes, n * k) == codes);
  CHECK(gpu.download(out.scales, n * k / 32) == scales);
  CHECK(gpu.download(out.sums, n * k / 16) == sums);
}

TEST_CASE("to_bfloat16 rounds to the nearest, ties to even") {
  for (const int64_t count : {1, 7, 8, 4096, 5003}) {
    Gpu gpu(count);
    Floats x = random_floats(count, 8);
    x[0] = 1.01171875f;
    uint16_t* out = gpu.allocate<uint16_t>(count);
    gpu.kernels().to_bfloat16({gpu.upload(x), count, out}, gpu.stream());
    std::vector<uint16_t> expected;
    for (const float value : x) expected.push_back(float_to_bfloat16(value));
    CHECK(gpu.download(out, count) == expected);
  }
}
