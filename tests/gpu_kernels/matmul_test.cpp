#include <cstring>
#include <list>

#include "cpu_kernels/matmul_case.h"
#include "gpu_kernels/gpu.h"

using namespace hearth;
using namespace hearth::test;

namespace {

using Rows = std::vector<int32_t>;

std::vector<TensorType> known_types() {
  Gpu gpu;
  std::vector<TensorType> types;
  for (const auto& list : {kPlainTypes, kBlockTypes}) {
    for (const TensorType type : list) {
      if (gpu.kernels().multiplies(type)) types.push_back(type);
    }
  }
  return types;
}

std::vector<int64_t> widths(TensorType type) {
  const int block = type_info(type).block_size;
  if (block == 1) return {1, 7, 33, 512, 1004};
  if (block == 32) return {32, 64, 1056, 2080, 8192};
  return {block, 2 * block, 9 * block, 4096};
}

// y of `n` tokens, in rows of case.stride() values. `before` bytes before the weights move them off
// their alignment.
std::vector<float> run(Case& c, int64_t n, const Rows& x_rows, const Rows& y_rows, uint64_t seed,
                       size_t before) {
  Gpu gpu(seed);
  const float untouched = -12345.0f;
  const std::vector<float> blank(n * c.stride(), untouched);
  float* y = gpu.upload(blank);
  const bool rounded = reads_quantized(c.type);
  GpuMatmulParams p = {};
  p.w = {c.type, c.rows, c.k,
         gpu.upload(c.weights.data(), c.rows * row_bytes(c.type, c.k), before)};
  if (!rounded) p.x = gpu.upload(c.x.data(), c.x_rows * c.k);
  if (rounded) {
    p.xq = {gpu.upload(c.codes.data(), c.x_rows * c.k),
            gpu.upload(c.scales.data(), c.x_rows * c.k / 32),
            gpu.upload(c.sums.data(), c.x_rows * c.k / 16)};
  }
  p.n = n;
  p.x_rows = x_rows.empty() ? nullptr : gpu.upload(x_rows);
  p.y_rows = y_rows.empty() ? nullptr : gpu.upload(y_rows);
  p.y = y;
  p.y_stride = c.stride();
  gpu.kernels().matmul(p, gpu.stream());
  std::vector<float> result = gpu.download(y, blank.size());
  for (int64_t i = 0; i < n * c.stride(); ++i) {
    if (i % c.stride() >= c.rows && result[i] != untouched) FAIL("wrote outside the rows");
  }
  return result;
}

// So many bytes that the weights end where nothing may be read.
size_t up_to_the_end(Case& c) { return (16 - c.rows * row_bytes(c.type, c.k) % 16) % 16; }

}  // namespace

TEST_CASE("matmul knows every weight format") {
  CHECK(known_types().size() == kPlainTypes.size() + kBlockTypes.size());
  Gpu gpu;
  CHECK_FALSE(gpu.kernels().multiplies(TensorType::kI32));
}

TEST_CASE("few tokens times every format, whatever the alignment") {
  for (const TensorType type : known_types()) {
    for (const int64_t k : widths(type)) {
      for (const int64_t n : {1, 2, 3, 8, 11}) {
        Case c(type, n == 3 ? 1 : 19, k, n, static_cast<uint32_t>(n * 1000 + k));
        CAPTURE(type_info(type).name);
        CAPTURE(k);
        CAPTURE(n);
        const size_t before = n == 2 ? static_cast<size_t>(k % 15) : up_to_the_end(c);
        CHECK(c.error(run(c, n, {}, {}, n, before), n) < 2e-6);
      }
    }
  }
}

TEST_CASE("rows of many chunks go through all stages of the pipeline") {
  for (const TensorType type : known_types()) {
    const int64_t k = 256 * 8 * 13 + type_info(type).block_size;
    Case c(type, 3, type_info(type).block_size == 1 ? k : 4 * k, 2, 17);
    for (const int64_t n : {1, 2}) {
      CAPTURE(type_info(type).name);
      CAPTURE(n);
      CHECK(c.error(run(c, n, {}, {}, 5, 3), n) < 4e-6);
    }
  }
}

TEST_CASE("matrices of many rows have a warp a row") {
  Case c(TensorType::kQ8_0, 8205, 1056, 2, 5);
  CHECK(c.error(run(c, 1, {}, {}, 3, 0), 1) < 2e-6);
  CHECK(c.error(run(c, 2, {}, {}, 3, 0), 2) < 2e-6);
}

TEST_CASE("a result does not depend on the batch, the other rows or the order of threads") {
  for (const TensorType type : known_types()) {
    CAPTURE(type_info(type).name);
    const int64_t tokens = 19;
    Case c(type, 9, 4096, tokens, 99);
    const std::vector<float> all = run(c, tokens, {}, {}, 0, 0);
    auto same = [&](const Rows& x_rows, uint64_t seed) {
      const std::vector<float> y = run(c, std::ssize(x_rows), x_rows, {}, seed, 0);
      for (size_t i = 0; i < x_rows.size(); ++i) {
        if (std::memcmp(&y[i * c.stride()], &all[x_rows[i] * c.stride()], c.rows * 4) != 0)
          return false;
      }
      return true;
    };
    CHECK(same({4}, 1));
    CHECK(same({8, 1}, 2));
    CHECK(same({18, 0, 18}, 3));
    CHECK(same({1, 2, 3, 4, 5, 6, 7}, 4));
    Rows reversed;
    for (int32_t i = tokens; i-- > 0;) reversed.push_back(i);
    CHECK(same(reversed, 5));
    // Written to the rows it was read from, a permuted batch is the plain one.
    CHECK(run(c, tokens, reversed, reversed, 6, 0) == all);
  }
}

TEST_CASE("products of one input share a launch and have the results they have alone") {
  for (const TensorType type : {TensorType::kF32, TensorType::kQ4_K, TensorType::kMXFP4}) {
    const int64_t k = 512;
    for (const int64_t n : {1, 9}) {
      Gpu gpu(n);
      std::vector<GpuMatmulParams> products;
      std::vector<std::vector<float>> expected;
      std::list<Case> cases;
      // Few rows, a single one, none, and so many that warps walk through them.
      for (const int64_t rows : {5, 1, 0, 4097, 8211}) {
        Case& c = cases.emplace_back(type, rows, k, n, 3);
        std::memcpy(c.x.data(), cases.front().x.data(), n * k * sizeof(float));
        c.round();
        expected.push_back(rows > 0 ? run(c, n, {}, {}, 1, 0)
                                    : std::vector<float>(n * c.stride(), -12345.0f));
      }
      Case& first = cases.front();
      const float* x = gpu.upload(first.x.data(), n * k);
      const GpuRoundedRows xq = {gpu.upload(first.codes.data(), n * k),
                                 gpu.upload(first.scales.data(), n * k / 32),
                                 gpu.upload(first.sums.data(), n * k / 16)};
      for (Case& c : cases) {
        const std::vector<float> blank(n * c.stride(), -12345.0f);
        GpuMatmulParams p = {};
        p.w = {type, c.rows, k, nullptr};
        if (c.rows > 0) p.w.data = gpu.upload(c.weights.data(), c.rows * row_bytes(type, k));
        p.x = x;
        p.xq = xq;
        p.n = n;
        p.y = gpu.upload(blank);
        p.y_stride = c.stride();
        products.push_back(p);
      }
      gpu.kernels().matmuls(products.data(), static_cast<int32_t>(products.size()), gpu.stream());
      for (size_t i = 0; i < products.size(); ++i) {
        CAPTURE(type_info(type).name);
        CAPTURE(n);
        CAPTURE(i);
        CHECK(gpu.download(products[i].y, expected[i].size()) == expected[i]);
      }
    }
  }
}

TEST_CASE("the smallest MXFP4 scales are not flushed to zero") {
  Case c(TensorType::kMXFP4, 17, 256, 1, 5);
  for (int64_t block = 0; block < 17 * 8; ++block) {
    c.weights[block * 17] = static_cast<unsigned char>(block / 8 % 4);
  }
  for (int64_t i = 0; i < 256; ++i) c.x[i] *= 0x1p20f;
  c.round();
  CHECK(c.error(run(c, 1, {}, {}, 0, 0), 1) < 2e-6);
}

TEST_CASE("nothing saturates at the largest codes") {
  for (const TensorType type : known_types()) {
    if (type_info(type).block_size == 1) continue;
    for (const int fill : {0x00, 0xff, 0x80, 0x7f, 0x88}) {
      Case c(type, 5, 512, 2, 1);
      Random random(2);
      std::memset(c.weights.data(), fill, 5 * row_bytes(type, 512));
      make_valid(type, c.weights.data(), 5 * row_bytes(type, 512), random);
      for (int64_t i = 0; i < 2 * 512; ++i) c.x[i] = i / 64 % 2 == 0 ? 1.0f : -1.0f;
      c.round();
      CAPTURE(type_info(type).name);
      CAPTURE(fill);
      CHECK(c.error(run(c, 2, {}, {}, 0, 0), 2) < 2e-6);
    }
  }
}

TEST_CASE("no tokens, no work") {
  Case c(TensorType::kF16, 4, 64, 1, 3);
  Gpu gpu;
  GpuMatmulParams p = {};
  p.w = {c.type, c.rows, c.k, gpu.upload(c.weights.data(), c.rows * row_bytes(c.type, c.k))};
  gpu.kernels().matmul(p, gpu.stream());
  gpu.kernels().rms_norm({}, gpu.stream());
  gpu.kernels().quantize({}, gpu.stream());
  gpu.kernels().rope({}, gpu.stream());
  gpu.kernels().to_bfloat16({}, gpu.stream());
}
