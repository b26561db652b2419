// The likeliest token and sums of rows, against plain loops.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/softmax.h"
#include "cpu_kernels/registry.h"
#include "gpu_kernels/gpu.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;
using Floats = std::vector<float>;
using Rows = std::vector<int32_t>;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Floats random_floats(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats values(n);
  for (float& value : values) value = normal(random);
  return values;
}

struct Likeliest {
  Rows tokens;
  Floats largest, sums;  // sums of blocks of tokens
};

Likeliest argmax(const Floats& logits, int64_t n, uint64_t seed, float scale = 1) {
  Gpu gpu(seed);
  const int64_t vocab = std::ssize(logits) / n;
  const int64_t blocks = (vocab + kSoftmaxBlock - 1) / kSoftmaxBlock;
  const GpuArgmaxParams p = {gpu.upload(logits),
                             n,
                             vocab,
                             gpu.allocate<int32_t>(n),
                             scale,
                             gpu.allocate<float>(n),
                             gpu.allocate<float>(n * blocks)};
  gpu.kernels().argmax(p, gpu.stream());
  return {gpu.download(p.tokens, n), gpu.download(p.largest, n), gpu.download(p.sums, n * blocks)};
}

}  // namespace

TEST_CASE("argmax: of each row, with what a softmax needs") {
  for (const int64_t vocab : {1, 5, 300, 4096, 20001}) {
    CAPTURE(vocab);
    const int64_t n = 3;
    const Floats logits = random_floats(n * vocab, static_cast<uint32_t>(vocab));
    Likeliest expected;
    for (int64_t row = 0; row < n; ++row) {
      const float* x = &logits[row * vocab];
      expected.tokens.push_back(static_cast<int32_t>(std::max_element(x, x + vocab) - x));
      expected.largest.push_back(x[expected.tokens.back()]);
      Floats terms(kSoftmaxBlock);
      for (int64_t i = 0; i < vocab; i += kSoftmaxBlock) {
        const int64_t count = std::min<int64_t>(kSoftmaxBlock, vocab - i);
        expected.sums.push_back(choose_kernels("avx2").softmax_terms(x + i, expected.largest.back(),
                                                                     0.7f, count, terms.data()));
      }
    }
    for (const uint64_t seed : {0, 1}) {
      const Likeliest found = argmax(logits, n, seed, 0.7f);
      CHECK(found.tokens == expected.tokens);
      CHECK(found.largest == expected.largest);
      CHECK(found.sums == expected.sums);
    }
  }
}

TEST_CASE("argmax: the lowest token wins a tie") {
  for (const int64_t vocab : {5001, 5000}) {
    Floats logits(vocab, 1.0f);
    CHECK(argmax(logits, 1, 1).tokens == Rows{0});
    for (const int i : {4500, 4200, 1777, 1778}) logits[i] = 2;
    CHECK(argmax(logits, 1, 2).tokens == Rows{1777});
  }
}

TEST_CASE("argmax: NaN never wins, infinities count as the largest floats") {
  CHECK(argmax({kNan, -3, kNan, -2}, 1, 0).tokens == Rows{3});
  CHECK(argmax({kNan, kNan}, 1, 0).tokens == Rows{0});
  CHECK(argmax({-kInfinity, -kInfinity, kNan}, 1, 0).tokens == Rows{0});
  const Likeliest found = argmax({1, kLargest, kInfinity, -kInfinity, kNan}, 1, 0);
  CHECK(found.tokens == Rows{1});
  CHECK(found.largest == Floats{kLargest});
  CHECK(found.sums == Floats{2});
}

TEST_CASE("argmax alone") {
  Gpu gpu;
  int32_t* tokens = gpu.allocate<int32_t>(1);
  gpu.kernels().argmax({gpu.upload(Floats{1, 3, 2}), 1, 3, tokens, 1, nullptr, nullptr},
                       gpu.stream());
  CHECK(gpu.download(tokens, 1) == Rows{1});
}

TEST_CASE("add") {
  Gpu gpu(3);
  const int64_t width = 333;
  const Floats x = random_floats(5 * width, 1), y = random_floats(5 * width, 2);
  float* out = gpu.upload(y);
  gpu.kernels().add({gpu.upload(x), std::ssize(x), out}, gpu.stream());
  Floats sum = y;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += x[i];
  CHECK(gpu.download(out, sum.size()) == sum);
}

TEST_CASE("rows of none") {
  Gpu gpu;
  gpu.kernels().argmax({}, gpu.stream());
  gpu.kernels().add({}, gpu.stream());
}
