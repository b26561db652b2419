// Matmul in tiles, the real ones and the emulated ones.
#define HEARTH_ISA amx_emulated
#include "cpu_kernels/amx/tile_tokens.h"
#include "cpu_kernels/amx/tile_unit.h"
#include "cpu_kernels/matmul_case.h"
#include "cpu_kernels/rounded_product.h"
#include "cpu_kernels/tile_tables.h"

using namespace hearth;
using namespace hearth::test;

namespace {

std::vector<int32_t> count_from(int32_t first, int64_t n, int32_t step = 1) {
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < n; ++i) rows.push_back(first + static_cast<int32_t>(i) * step);
  return rows;
}

std::vector<int32_t> shuffled(int64_t n, uint32_t seed) {
  std::vector<int32_t> rows = count_from(0, n);
  std::shuffle(rows.begin(), rows.end(), Random(seed));
  return rows;
}

struct Shape {
  int64_t n, rows, columns;  // columns of block-32 formats; others have the next multiple of 256
};

// Few and many tokens; rows and columns on both sides of a tile, a block, a strip and a chunk.
const std::vector<Shape> kShapes = {{4, 1, 32},      {15, 16, 288},   {16, 17, 544},
                                    {17, 31, 2080},  {32, 33, 2304},  {33, 130, 544},
                                    {64, 47, 1056},  {40, 530, 544},  {16, 40, 4128},
                                    {100, 16, 1280}, {97, 270, 2336}, {130, 33, 32}};

}  // namespace

TEST_CASE("the emulated tile unit multiplies as plain loops do") {
  Random random(1);
  std::normal_distribution<float> normal;
  uint16_t tokens[16][32], weights[16][32];
  for (auto* matrix : {&tokens, &weights}) {
    for (auto& row : *matrix) {
      for (uint16_t& value : row) value = float_to_bfloat16(normal(random));
    }
  }
  amx_emulated::TileUnit unit;
  unit.configure({16, 0, 5, 0, 16, 5, 16, 0});
  unit.load<6>(weights, 64);
  unit.load<4>(tokens, 64);
  unit.load<5>(tokens[15], -64);  // backwards, five rows
  unit.zero<0>();
  for (int i = 0; i < 2; ++i) unit.multiply<0, 4, 6>();
  unit.multiply<2, 5, 6>();
  float sums[16][20], backwards[16][16] = {};
  unit.store<0>(sums, sizeof(sums[0]));
  unit.store<2>(backwards, sizeof(backwards[0]));
  for (int t = 0; t < 16; ++t) {
    for (int r = 0; r < 16; ++r) {
      double sum = 0;
      for (int j = 0; j < 32; ++j) {
        sum += bfloat16_to_float(tokens[t][j]) * bfloat16_to_float(weights[j / 2][2 * r + j % 2]);
      }
      CHECK(sums[t][r] == doctest::Approx(2 * sum).epsilon(1e-4));
      CHECK(backwards[15 - t][r] == doctest::Approx(t > 10 ? sum : 0).epsilon(1e-4));
    }
  }
}

TEST_CASE("the emulated tile unit multiplies bytes as plain loops do") {
  Random random(2);
  int8_t left[5][32], right[8][8][4];  // row p of the right one: bytes 4 p .. 4 p + 3 of eight rows
  for (auto& row : left) {
    for (int8_t& value : row) value = static_cast<int8_t>(random());
  }
  for (auto& row : right) {
    for (auto& word : row) {
      for (int8_t& value : word) value = static_cast<int8_t>(random());
    }
  }
  amx_emulated::TileUnit unit;
  unit.configure({5, 5, 8, 0, 0, 0, 0, 0}, {32, 32, 32, 0, 0, 0, 0, 0});
  unit.zero<0>();
  unit.load<1>(left, 32);
  unit.load<2>(right, 32);
  for (int i = 0; i < 2; ++i) unit.multiply_bytes<0, 1, 2>();
  int32_t sums[5][8];
  unit.store<0>(sums, 32);
  for (int t = 0; t < 5; ++t) {
    for (int r = 0; r < 8; ++r) {
      int32_t sum = 0;
      for (int j = 0; j < 32; ++j) sum += left[t][j] * right[j / 4][r][j % 4];
      CHECK(sums[t][r] == 2 * sum);
    }
  }
}

TEST_CASE("tiles multiply every block format and floats of 16 bits") {
  std::vector<TensorType> types = {TensorType::kF16, TensorType::kBF16};
  types.insert(types.end(), kBlockTypes.begin(), kBlockTypes.end());
  for (const Kernels* kernels : tile_tables()) {
    for (const TensorType type : types) {
      for (const Shape& shape : kShapes) {
        const int64_t block = type_info(type).block_size;
        const int64_t n = std::max(shape.n, amx_emulated::tile_tokens_min(type));
        Case c(type, shape.rows, (shape.columns + block - 1) / block * block, n, 11);
        c.prefill = true;
        c.round(*kernels);
        CAPTURE(kernels->name);
        CAPTURE(type_info(type).name);
        CAPTURE(n);
        CAPTURE(c.k);
        const std::vector<int32_t> all = count_from(0, n);
        check_product(c, c.run(*kernels, n, nullptr, 0, c.rows), all, all, 0, c.rows);
      }
    }
  }
}

TEST_CASE("tiles read and write the rows they are told to") {
  for (const Kernels* kernels : tile_tables()) {
    for (const TensorType type : {TensorType::kMXFP4, TensorType::kQ8_0, TensorType::kQ4_K}) {
      Case c(type, 75, 768, 90, 12);
      c.prefill = true;
      c.round(*kernels);
      for (const int64_t tokens : {4, 16, 31, 32, 45}) {
        const int64_t n = std::max(tokens, amx_emulated::tile_tokens_min(type));
        CAPTURE(n);
        const int32_t last = static_cast<int32_t>(n) - 1;
        std::vector<int32_t> any = shuffled(90, 13);
        any.resize(n);
        for (const std::vector<int32_t>& gather :
             {count_from(7, n), count_from(0, n, 2), count_from(89, n, -1), count_from(5, n, 0),
              any}) {
          for (const auto& [begin, end] : {std::pair{0, 75}, std::pair{16, 48}, std::pair{5, 6}}) {
            const std::vector<int32_t> in_order = count_from(0, n),
                                       reversed = count_from(last, n, -1);
            check_product(c, c.run(*kernels, n, gather.data(), begin, end), gather, in_order, begin,
                          end);
            check_product(c, c.run(*kernels, n, gather.data(), begin, end, reversed.data()), gather,
                          reversed, begin, end);
          }
        }
      }
    }
  }
}

TEST_CASE("decode, few tokens and exact weights are AVX-512's, to the bit") {
  for (const Kernels* kernels : tile_tables()) {
    const Kernels& avx512 = choose_kernels("avx512");
    const auto same = [&](TensorType type, int64_t n, bool prefill) {
      Case c(type, 37, 512, n, 14);
      c.prefill = prefill;
      c.round(*kernels);
      return c.run(*kernels, n, nullptr, 0, 37) == c.run(avx512, n, nullptr, 0, 37);
    };
    for (const TensorType type : kBlockTypes) {
      CAPTURE(type_info(type).name);
      CHECK(same(type, 1, true));
      CHECK(same(type, amx_emulated::tile_tokens_min(type) - 1, true));
      CHECK(same(type, 33, false));
      CHECK_FALSE(same(type, 33, true));
    }
    for (const TensorType type : {TensorType::kF32, TensorType::kF8_E4M3}) {
      CHECK(same(type, 33, true));
    }
    for (const TensorType type : {TensorType::kF16, TensorType::kBF16}) {
      CHECK(same(type, 3, true));
      CHECK(same(type, 33, false));
      CHECK_FALSE(same(type, 33, true));
    }
  }
}

TEST_CASE("batches that decode are AVX-512's to the bit, whatever their size, columns and rows") {
  for (const Kernels* kernels : tile_tables()) {
    const Kernels& avx512 = choose_kernels("avx512");
    for (const int64_t columns : {32, 288, 2048, 2144, 4224}) {
      for (const int64_t n : {3, 5, 8, 9, 16, 25, 64, 65}) {
        Case c(TensorType::kQ8_0, 37, columns, n, static_cast<uint32_t>(columns + n));
        c.round(*kernels);
        CAPTURE(columns);
        CAPTURE(n);
        const std::vector<int32_t> rows = shuffled(n, 5);
        for (const auto& [begin, end] : {std::pair{0, 37}, {3, 5}, {16, 32}}) {
          CHECK(c.run(*kernels, n, rows.data(), begin, end, rows.data()) ==
                c.run(avx512, n, rows.data(), begin, end, rows.data()));
        }
      }
    }
  }
}

TEST_CASE("MXFP4 scales of any size, and zeros whatever the scale") {
  for (const Kernels* kernels : tile_tables()) {
    for (const int exponent : {0, 1, 2, 3, 40, 127, 200, 252, 253, 254}) {
      CAPTURE(exponent);
      Case c(TensorType::kMXFP4, 16, 64, 16, 15);
      c.prefill = true;
      const float size = std::ldexp(1.0f, std::clamp(127 - exponent, -100, 100));
      for (int64_t i = 0; i < 16 * 64; ++i) c.x[i] = i / 64 == 3 ? 0 : std::round(c.x[i]) * size;
      c.round(*kernels);
      for (int64_t b = 0; b < 16 * 2; ++b) {
        c.weights[b * 17] = static_cast<unsigned char>(exponent);
        for (int i = 1; i < 17 && b >= 30; ++i) c.weights[b * 17 + i] = i % 2 == 0 ? 0x88 : 0x80;
      }
      const std::vector<float> y = c.run(*kernels, 16, nullptr, 0, 16);
      for (int t = 0; t < 16; ++t) CHECK(y[t * c.stride() + 15] == 0);
      const std::vector<int32_t> without_zeros = count_from(4, 12);
      if (exponent >= 2 && exponent <= 252) {
        check_product(c, y, without_zeros, without_zeros, 0, 15);
      }
      for (int64_t i = 0; i < 16 * c.stride(); ++i) CHECK(std::isfinite(y[i]));
    }
  }
}

TEST_CASE("tiles round tokens to the nearest bfloat16, in their order of columns") {
  const int64_t n = 3, k = 96, stride = k + 32;
  Random random(16);
  std::normal_distribution<float> normal;
  std::vector<float> x(n * k);
  for (float& value : x) value = normal(random);
  x[5] = 1 + 0x1p-8f;  // ties go to even
  x[6] = 1 + 0x3p-8f;
  for (const Kernels* kernels : tile_tables()) {
    std::vector<int8_t> codes(n * k), expected_codes(n * k);
    std::vector<float> scales(n * k / 32), sums(n * k / 16);
    std::vector<uint16_t> rounded(n * stride, 7);
    kernels->quantize(x.data(), n, k,
                      {codes.data(), scales.data(), sums.data(), rounded.data(), stride});
    choose_kernels("reference")
        .quantize(x.data(), n, k, {expected_codes.data(), scales.data(), sums.data(), nullptr, 0});
    CHECK(codes == expected_codes);
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t j = 0; j < stride; ++j) {
        const uint16_t expected =
            j < k ? float_to_bfloat16(x[row * k + j / 32 * 32 + j % 16 * 2 + j % 32 / 16]) : 7;
        CHECK(rounded[row * stride + j] == expected);
      }
    }
  }
}
