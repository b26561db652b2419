// Attention in tiles, the real ones and the emulated ones, against the reference.
#include <algorithm>
#include <cmath>
#include <random>

#include "cpu_kernels/tile_tables.h"
#include "format/dequantize.h"

using namespace hearth;

namespace {

using Floats = std::vector<float>;

struct AttentionCase {
  AttentionCase(int32_t head_count, int32_t width, int32_t row_count)
      : heads(head_count),
        dim(width),
        n_rows(row_count),
        q(heads * dim),
        sinks(heads),
        values(row_count * dim) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : q) value = normal(random);
    for (float& value : sinks) value = normal(random);
    for (uint16_t& value : values) value = float_to_bfloat16(normal(random));
    for (int32_t r = 0; r < n_rows; ++r) rows.push_back(values.data() + r * dim);
  }

  Floats run(const Kernels& kernels, bool prefill) const {
    Floats out(heads * dim, -1), scores(heads * n_rows);
    kernels.attention({.q = q.data(),
                       .rows = rows.data(),
                       .kv_type = KvType::kBF16,
                       .n_rows = n_rows,
                       .dim = dim,
                       .head_begin = 0,
                       .head_end = heads,
                       .sinks = sinks.data(),
                       .scale = 1 / std::sqrt(static_cast<float>(dim)),
                       .scores = scores.data(),
                       .out = out.data(),
                       .prefill = prefill});
    return out;
  }

  int32_t heads, dim, n_rows;
  Floats q, sinks;
  std::vector<uint16_t> values;
  std::vector<const void*> rows;
};

void check_close(const Floats& expected, const Floats& actual) {
  double worst = 0, squares = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double off = std::abs(expected[i] - actual[i]);
    worst = std::max(worst, off);
    squares += off * off;
  }
  CHECK(worst < 0.01);
  CHECK(std::sqrt(squares / static_cast<double>(expected.size())) < 0.0015);
}

}  // namespace

TEST_CASE("attention in tiles: heads, widths and rows of any number") {
  const Kernels& reference = choose_kernels("reference");
  for (const Kernels* kernels : test::tile_tables()) {
    for (const int32_t heads : {16, 23, 64, 112}) {
      for (const int32_t dim : {32, 96, 512}) {
        for (const int32_t n_rows : {32, 33, 70, 300}) {
          AttentionCase c(heads, dim, n_rows);
          CAPTURE(kernels->name);
          CAPTURE(heads);
          CAPTURE(dim);
          CAPTURE(n_rows);
          const Floats expected = c.run(reference, false);
          check_close(expected, c.run(*kernels, true));
          std::shuffle(c.rows.begin(), c.rows.end(), std::mt19937(2));
          check_close(expected, c.run(*kernels, true));
        }
      }
    }
  }
}

TEST_CASE(
    "attention of a decode, and of a prefill that tiles can't take, is AVX-512's to the bit") {
  const Kernels& avx512 = choose_kernels("avx512");
  for (const Kernels* kernels : test::tile_tables()) {
    const AttentionCase c(64, 64, 100), few_heads(15, 64, 100), odd_width(64, 40, 100);
    CHECK(c.run(*kernels, false) == c.run(avx512, false));
    CHECK_FALSE(c.run(*kernels, true) == c.run(avx512, true));
    CHECK(few_heads.run(*kernels, true) == few_heads.run(avx512, true));
    CHECK(odd_width.run(*kernels, true) == odd_width.run(avx512, true));
  }
}
