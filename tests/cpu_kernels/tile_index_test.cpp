// The indexer's scores in tiles, the real ones and the emulated ones, against the reference.
#include <algorithm>
#include <random>

#include "cpu_kernels/tile_tables.h"
#include "format/dequantize.h"
#include "support.h"

using namespace hearth;

namespace {

using Floats = std::vector<float>;

struct IndexCase {
  IndexCase(int32_t head_count, int32_t width, int64_t key_count)
      : heads(head_count), dim(width), keys(key_count), q(heads * dim), weights(heads) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& value : q) value = normal(random);
    for (float& value : weights) value = normal(random);
    for (int64_t i = 0; i < keys * dim; ++i) values.push_back(float_to_bfloat16(normal(random)));
  }

  // Scores of keys [begin, end), -1 of the others.
  Floats run(const Kernels& kernels, int64_t begin, int64_t end, bool prefill) const {
    Floats scores(keys, -1);
    kernels.index_scores({.q = q.data(),
                          .head_weights = weights.data(),
                          .keys = values.data(),
                          .kv_type = KvType::kBF16,
                          .heads = heads,
                          .dim = dim,
                          .key_begin = begin,
                          .key_end = end,
                          .scores = scores.data(),
                          .prefill = prefill});
    return scores;
  }

  int32_t heads, dim;
  int64_t keys;
  Floats q, weights;
  std::vector<uint16_t> values;
};

}  // namespace

TEST_CASE("index scores in tiles: heads, widths and keys of any number") {
  const Kernels& reference = choose_kernels("reference");
  for (const Kernels* kernels : test::tile_tables()) {
    for (const int32_t heads : {16, 32, 48, 64}) {
      for (const int32_t dim : {32, 128, 256}) {
        const IndexCase c(heads, dim, 90);
        const double tolerance = 5e-5 * heads;  // of sums of `heads` terms of some sqrt(dim)
        for (const auto& [begin, end] : {std::pair{0, 90}, std::pair{0, 32}, std::pair{3, 4},
                                         std::pair{16, 65}, std::pair{41, 90}}) {
          CAPTURE(kernels->name);
          CAPTURE(heads);
          CAPTURE(dim);
          CAPTURE(begin);
          CAPTURE(end);
          const Floats expected = c.run(reference, begin, end, false);
          CHECK(test::max_difference(expected, c.run(*kernels, begin, end, true)) < tolerance);
        }
      }
    }
  }
}

TEST_CASE("a key's score in tiles does not depend on the keys beside it") {
  for (const Kernels* kernels : test::tile_tables()) {
    const IndexCase c(64, 128, 70);
    const Floats whole = c.run(*kernels, 0, 70, true), part = c.run(*kernels, 13, 50, true);
    CHECK(std::equal(part.begin() + 13, part.begin() + 50, whole.begin() + 13));
  }
}

TEST_CASE("index scores of a decode, and those that tiles can't take, are AVX-512's to the bit") {
  const Kernels& avx512 = choose_kernels("avx512");
  for (const Kernels* kernels : test::tile_tables()) {
    const IndexCase c(64, 64, 50), odd_width(64, 40, 50), many_heads(80, 32, 50);
    CHECK(c.run(*kernels, 0, 50, false) == c.run(avx512, 0, 50, false));
    CHECK_FALSE(c.run(*kernels, 0, 50, true) == c.run(avx512, 0, 50, true));
    CHECK(odd_width.run(*kernels, 0, 50, true) == odd_width.run(avx512, 0, 50, true));
    CHECK(many_heads.run(*kernels, 0, 50, true) == many_heads.run(avx512, 0, 50, true));
  }
}
