// The kernels that profiles are measured with: they read and multiply what they say.
#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "format/dequantize.h"
#include "gpu_kernels/gpu.h"

using namespace hearth;
using namespace hearth::test;

TEST_CASE("read_bytes sums every word of every block") {
  constexpr int64_t kBlockWords = kGpuReadBlockBytes / 4;
  for (const int64_t words : {int64_t{4}, int64_t{1028}, kBlockWords, 2 * kBlockWords + 8}) {
    CAPTURE(words);
    std::mt19937 random(static_cast<uint32_t>(words));
    std::vector<uint32_t> values(static_cast<size_t>(words));
    std::vector<uint32_t> expected(static_cast<size_t>((words + kBlockWords - 1) / kBlockWords));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<uint32_t>(random());
      expected[i / kBlockWords] += values[i];
    }
    Gpu gpu(static_cast<uint64_t>(words));
    uint32_t* sums = gpu.allocate<uint32_t>(expected.size());
    gpu.kernels().read_bytes({gpu.upload(values), 4 * words, sums}, gpu.stream());
    CHECK(gpu.download(sums, expected.size()) == expected);
  }
}

TEST_CASE("multiply_tiles multiplies all of both matrices, as often as it says") {
  // Small whole numbers, so that sums in any order are exact.
  std::mt19937 random(1);
  const auto random_numbers = [&](int32_t rows, std::vector<float>& column_sums) {
    std::vector<uint16_t> numbers;
    for (int32_t i = 0; i < rows * kGpuTileDepth; ++i) {
      const float number = static_cast<float>(random() % 9) - 3;
      column_sums[static_cast<size_t>(i % kGpuTileDepth)] += number;
      numbers.push_back(float_to_bfloat16(number));
    }
    return numbers;
  };
  std::vector<float> a_sums(kGpuTileDepth), b_sums(kGpuTileDepth);
  const std::vector<uint16_t> a = random_numbers(kGpuTileRows, a_sums);
  const std::vector<uint16_t> b = random_numbers(kGpuTileColumns, b_sums);
  float once = 0;
  for (size_t k = 0; k < a_sums.size(); ++k) once += a_sums[k] * b_sums[k];
  REQUIRE(once != 0);

  for (const int32_t rounds : {0, 1, 3}) {
    constexpr int64_t kBlocks = 2;
    Gpu gpu(static_cast<uint64_t>(rounds));
    float* sums = gpu.allocate<float>(kBlocks);
    const int64_t operations = gpu.kernels().multiply_tiles(
        {gpu.upload(a), gpu.upload(b), kBlocks, rounds, sums}, gpu.stream());
    CHECK(operations == int64_t{2} * 64 * 32 * 16 * kGpuTileWarps * kBlocks * rounds);
    const float expected = once * static_cast<float>(rounds * kGpuTileWarps);
    CHECK(gpu.download(sums, kBlocks) == std::vector<float>(kBlocks, expected));
  }
}
