// Products with many tokens, on tensor cores.
#include <string>

#include "cpu_kernels/rounded_product.h"
#include "gpu_kernels/gpu.h"

using namespace hearth;
using namespace hearth::test;

namespace {

using Rows = std::vector<int32_t>;

Rows count_from(int32_t first, int64_t n, int32_t step = 1) {
  Rows rows;
  for (int64_t i = 0; i < n; ++i) rows.push_back(first + static_cast<int32_t>(i) * step);
  return rows;
}

std::vector<TensorType> rounded_types() {
  std::vector<TensorType> types = kBlockTypes;
  types.insert(types.end(), {TensorType::kF16, TensorType::kBF16, TensorType::kF8_E4M3});
  return types;
}

// y of the rows of x that are named, or of all. `before` bytes before the weights move them off
// their alignment; without, they end where nothing may be read.
std::vector<float> run(Case& c, const Rows& x_rows, const Rows& y_rows, uint64_t seed,
                       size_t before) {
  Gpu gpu(seed);
  const int64_t n = x_rows.empty() ? c.x_rows : std::ssize(x_rows);
  const int64_t weight_bytes = c.rows * row_bytes(c.type, c.k);
  if (before == 0) before = (16 - weight_bytes % 16) % 16;
  const float untouched = -12345.0f;
  const std::vector<float> blank(n * c.stride(), untouched);
  float* y = gpu.upload(blank);
  uint16_t* bfloat16s = gpu.allocate<uint16_t>(c.x_rows * c.k);
  gpu.kernels().to_bfloat16({gpu.upload(c.x.data(), c.x_rows * c.k), c.x_rows * c.k, bfloat16s},
                            gpu.stream());
  GpuMatmulParams p = {};
  p.w = {c.type, c.rows, c.k, gpu.upload(c.weights.data(), weight_bytes, before)};
  p.x_rows = x_rows.empty() ? nullptr : gpu.upload(x_rows);
  p.n = n;
  p.y = y;
  p.y_rows = y_rows.empty() ? nullptr : gpu.upload(y_rows);
  p.y_stride = c.stride();
  p.bfloat16s = bfloat16s;
  p.prefill = true;
  CHECK(gpu.kernels().reads_bfloat16s(p));
  gpu.kernels().matmul(p, gpu.stream());
  std::vector<float> result = gpu.download(y, blank.size());
  for (int64_t i = 0; i < n * c.stride(); ++i) {
    if (i % c.stride() >= c.rows && result[i] != untouched) FAIL("wrote outside the rows");
  }
  return result;
}

void check_all(Case& c, uint64_t seed, size_t before) {
  CAPTURE(std::string(type_info(c.type).name));
  CAPTURE(c.rows);
  CAPTURE(c.k);
  CAPTURE(c.x_rows);
  const Rows all = count_from(0, c.x_rows);
  check_product(c, run(c, {}, {}, seed, before), all, all, 0, c.rows);
}

}  // namespace

TEST_CASE("many tokens times every format, on both sides of a tile") {
  struct Shape {
    int64_t n, rows, columns;
  };
  for (const TensorType type : rounded_types()) {
    const int64_t block = type_info(type).block_size;
    uint64_t seed = 0;
    for (const Shape& shape : {Shape{9, 1, 32}, Shape{32, 33, 544}, Shape{33, 20, 288},
                               Shape{20, 130, 1056}, Shape{130, 17, 96}}) {
      Case c(type, shape.rows, (shape.columns + block - 1) / block * block, shape.n, 11);
      check_all(c, seed, seed % 2 == 0 ? 0 : 2 * seed + 1);
      ++seed;
    }
  }
}

TEST_CASE("many tokens: full tiles") {
  Case c(TensorType::kMXFP4, 256, 192, 256, 3);
  check_all(c, 9, 0);
}

TEST_CASE("many tokens: the largest tiles, of one step and of many, aligned and not") {
  for (const TensorType type :
       {TensorType::kBF16, TensorType::kQ8_0, TensorType::kQ6_K, TensorType::kIQ2_S}) {
    const int64_t columns = type_info(type).block_size == 256 ? 768 : 352;
    Case c(type, 150, columns, 260, 21);
    check_all(c, 0, 0);
    check_all(c, 1, 6);
  }
  Case c(TensorType::kBF16, 257, 32, 129, 22);
  check_all(c, 2, 0);
}

TEST_CASE("many tokens read and write the rows they are told to") {
  for (const TensorType type : {TensorType::kMXFP4, TensorType::kQ4_K, TensorType::kBF16}) {
    Case c(type, 35, 256, 90, 12);
    for (const int64_t n : {9, 32, 45}) {
      CAPTURE(std::string(type_info(type).name));
      CAPTURE(n);
      const Rows in_order = count_from(0, n), reversed = count_from(static_cast<int>(n) - 1, n, -1);
      for (const Rows& x_rows : {count_from(7, n), count_from(89, n, -1), count_from(5, n, 0)}) {
        check_product(c, run(c, x_rows, {}, 1, 0), x_rows, in_order, 0, c.rows);
        check_product(c, run(c, x_rows, reversed, 2, 0), x_rows, reversed, 0, c.rows);
      }
    }
  }
}

TEST_CASE("many tokens: the order of threads changes nothing") {
  for (const TensorType type :
       {TensorType::kQ6_K, TensorType::kIQ2_S, TensorType::kQ8_0, TensorType::kBF16}) {
    for (const int64_t n : {20, 40, 140}) {
      Case c(type, 140, 768, n, 13);
      const std::vector<float> y = run(c, {}, {}, 0, 1);
      for (const uint64_t seed : {1, 2, 3, 4}) CHECK(run(c, {}, {}, seed, 1) == y);
    }
  }
}

TEST_CASE("tensor cores only where they may be used") {
  Gpu gpu;
  GpuMatmulParams p = {};
  p.w = {TensorType::kQ8_0, 4, 64, nullptr};
  p.n = 9;
  CHECK_FALSE(gpu.kernels().reads_bfloat16s(p));
  p.prefill = true;
  CHECK(gpu.kernels().reads_bfloat16s(p));
  p.n = 8;
  CHECK_FALSE(gpu.kernels().reads_bfloat16s(p));
  p.n = 9;
  p.w.type = TensorType::kF32;
  CHECK_FALSE(gpu.kernels().reads_bfloat16s(p));
  p.w = {TensorType::kF16, 4, 72, nullptr};
  CHECK_FALSE(gpu.kernels().reads_bfloat16s(p));
}
