#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cpu_kernels/registry.h"

using namespace hearth;

namespace {

struct Rounded {
  std::vector<int8_t> codes;
  std::vector<float> scales, sums;

  Rounded(const Kernels& kernels, const std::vector<float>& x, int64_t n, int64_t k)
      : codes(n * k), scales(n * k / 32), sums(n * k / 16) {
    std::vector<uint16_t> bfloat16s(n * k);  // tiles_test.cpp looks at those
    kernels.quantize(x.data(), n, k,
                     {codes.data(), scales.data(), sums.data(), bfloat16s.data(), k});
  }
  bool operator==(const Rounded&) const = default;
};

}  // namespace

TEST_CASE("the reference rounds by the definition") {
  std::vector<float> x(64, 0.0f);
  x[0] = -127.0f;  // the block's scale is 1
  x[1] = 0.5f;     // ties go to even
  x[2] = 1.5f;
  x[3] = 2.5f;
  x[16] = 126.6f;
  x[31] = -3.4f;
  const Rounded r(choose_kernels("reference"), x, 1, 64);
  CHECK(r.scales[0] == 1.0f);
  CHECK(std::vector<int>(r.codes.begin(), r.codes.begin() + 4) == std::vector<int>{-127, 0, 2, 2});
  CHECK(r.codes[16] == 127);
  CHECK(r.codes[31] == -3);
  CHECK(r.sums[0] == -123.0f);
  CHECK(r.sums[1] == 124.0f);
  CHECK(r.scales[1] == 0.0f);  // a block of zeros
  CHECK(r.sums[2] == 0.0f);
}

TEST_CASE("a rounded value is within half a step of the true one") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(320);
  for (float& value : x) value = normal(random);
  const Rounded r(choose_kernels("reference"), x, 2, 160);
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(std::abs(r.scales[i / 32] * r.codes[i] - x[i]) <= 0.50001f * r.scales[i / 32]);
  }
}

TEST_CASE("every instruction set rounds to the same bits") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const int64_t n = 5, k = 1056;
  std::vector<float> x(n * k);
  for (size_t i = 0; i < x.size(); ++i) {
    const int kind = static_cast<int>(i / 32 % 8);
    // Widely different blocks: ties, zeros, values too small to scale, huge ones.
    const float sizes[8] = {1, 1e-3f, 1e30f, 1e-35f, 1e-37f, 1e-44f, 0, 1};
    x[i] = kind == 7 ? static_cast<float>(random() % 255) * 0.5f - 63.5f
                     : normal(random) * sizes[kind];
    if (kind == 7 && i % 32 == 5) x[i] = 127.0f;
  }
  const Rounded expected(choose_kernels("reference"), x, n, k);
  for (const Kernels* kernels : usable_kernels()) {
    CHECK_MESSAGE(Rounded(*kernels, x, n, k) == expected, kernels->name);
  }
}
