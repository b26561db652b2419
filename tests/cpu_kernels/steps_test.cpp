// Every step of the table but the matrix products, on every usable instruction set, against the
// reference table.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cpu_kernels/registry.h"
#include "support.h"

using namespace hearth;
using Floats = std::vector<float>;

namespace {

Floats random_floats(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  Floats values(n);
  for (float& value : values) value = normal(random);
  return values;
}

// Runs `body(kernels)` for the reference and for every other table; the outputs must agree.
template <typename F>
void compare(double tolerance, F body) {
  const Kernels& reference = choose_kernels("reference");
  const Floats expected = body(reference);
  for (const Kernels* kernels : usable_kernels()) {
    if (kernels == &reference) continue;
    CAPTURE(kernels->name);
    CHECK(test::max_difference(expected, body(*kernels)) <= tolerance);
  }
}

// Cache rows of either kind, with pointers to them.
struct Rows {
  Rows(int32_t count, int32_t dim, KvType type, uint32_t seed)
      : bytes(static_cast<size_t>(count) * dim * (type == KvType::kF32 ? 4 : 2)) {
    const Floats values = random_floats(static_cast<size_t>(count) * dim, seed);
    choose_kernels("reference").store_kv(values.data(), std::ssize(values), type, bytes.data());
    for (int32_t r = 0; r < count; ++r) {
      pointers.push_back(bytes.data() + static_cast<size_t>(r) * bytes.size() / count);
    }
  }
  std::vector<unsigned char> bytes;
  std::vector<const void*> pointers;
};

}  // namespace

TEST_CASE("rms_norm: widths of any kind, with and without gain, in place") {
  for (const int64_t k : {1, 7, 16, 33, 64, 96, 1000}) {
    const Floats x = random_floats(3 * k, 1), gain = random_floats(k, 2);
    compare(2e-6, [&](const Kernels& kernels) {
      Floats y(3 * k), in_place = x;
      kernels.rms_norm(x.data(), gain.data(), 1e-6f, 3, k, y.data());
      kernels.rms_norm(in_place.data(), nullptr, 1e-6f, 3, k, in_place.data());
      y.insert(y.end(), in_place.begin(), in_place.end());
      return y;
    });
  }
  const float zeros[4] = {};
  float y[4];
  choose_kernels("").rms_norm(zeros, nullptr, 1e-6f, 1, 4, y);
  CHECK(y[0] == 0);
}

TEST_CASE("rope rotates the trailing pairs only, and back") {
  const int32_t heads = 3, dim = 20, rope_dim = 8;
  const Floats x = random_floats(heads * dim, 3), cosines{1, 0.5f, 0, -1},
               sines{0, std::sqrt(0.75f), 1, 0};
  Floats minus_sines = sines;
  for (float& sine : minus_sines) sine = -sine;
  compare(1e-6, [&](const Kernels& kernels) {
    Floats y = x;
    kernels.rope({y.data(), heads, dim, rope_dim, cosines.data(), sines.data()});
    CHECK(y[11] == x[11]);
    CHECK(y[16] == doctest::Approx(-x[17]));  // a quarter turn: (a, b) to (-b, a)
    CHECK(y[17] == doctest::Approx(x[16]));
    Floats back = y;
    kernels.rope({back.data(), heads, dim, rope_dim, cosines.data(), minus_sines.data()});
    CHECK(test::max_difference(back, x) < 1e-6);
    return y;
  });
}

TEST_CASE("store_kv rounds to nearest even") {
  const Floats x = {1.0f, 1.00390625f, 1.01171875f, -3.0e38f, 1e-40f, 0.1f};
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    std::vector<uint16_t> rounded(x.size());
    kernels->store_kv(x.data(), std::ssize(x), KvType::kBF16, rounded.data());
    CHECK(rounded == std::vector<uint16_t>{0x3f80, 0x3f80, 0x3f82, 0xff62, 0x0001, 0x3dcd});
    Floats kept(x.size());
    kernels->store_kv(x.data(), std::ssize(x), KvType::kF32, kept.data());
    CHECK(kept == x);
  }
}

TEST_CASE("attention: every tile of heads and rows, sinks, both cache types") {
  for (const KvType type : {KvType::kF32, KvType::kBF16}) {
    for (const int32_t dim : {16, 24, 32, 100}) {
      for (const int32_t n_rows : {1, 2, 3, 17, 70}) {
        const int32_t heads = 7;
        const Rows rows(n_rows, dim, type, 4);
        const Floats q = random_floats(heads * dim, 5), sinks = random_floats(heads, 6, 3);
        compare(3e-6, [&](const Kernels& kernels) {
          Floats out(heads * dim), scores(heads * n_rows);
          for (const auto& [begin, end] : {std::pair{0, 5}, std::pair{5, 7}}) {
            kernels.attention({.q = q.data(),
                               .rows = rows.pointers.data(),
                               .kv_type = type,
                               .n_rows = n_rows,
                               .dim = dim,
                               .head_begin = begin,
                               .head_end = end,
                               .sinks = sinks.data(),
                               .scale = 0.3f,
                               .scores = scores.data(),
                               .out = out.data()});
          }
          return out;
        });
      }
    }
  }
}

TEST_CASE("attention: the split of heads does not change a bit, large scores do not overflow") {
  const int32_t heads = 8, dim = 64, n_rows = 37;
  const Rows rows(n_rows, dim, KvType::kBF16, 7);
  const Floats q = random_floats(heads * dim, 8, 100), sinks(heads, -1e4f);
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    const auto run = [&](int32_t step) {
      Floats out(heads * dim), scores(heads * n_rows);
      for (int32_t head = 0; head < heads; head += step) {
        kernels->attention({q.data(), rows.pointers.data(), KvType::kBF16, n_rows, dim, head,
                            std::min(head + step, heads), sinks.data(), 1.0f, scores.data(),
                            out.data()});
      }
      return out;
    };
    const Floats whole = run(heads);
    CHECK(whole == run(1));
    CHECK(whole == run(3));
    CHECK(std::isfinite(whole[0]));
  }
}

TEST_CASE("index_scores: head vectors, key tiles and ranges") {
  for (const KvType type : {KvType::kF32, KvType::kBF16}) {
    for (const int32_t heads : {16, 32, 48, 64}) {
      const int32_t dim = 24, keys = 23;
      const Rows rows(keys, dim, type, 9);
      const Floats q = random_floats(dim * heads, 10), weights = random_floats(heads, 11);
      compare(1e-4, [&](const Kernels& kernels) {
        Floats scores(keys, -1);
        for (const auto& [begin, end] : {std::pair{0, 6}, std::pair{6, 22}}) {
          kernels.index_scores({q.data(), weights.data(), rows.bytes.data(), type, heads, dim,
                                begin, end, scores.data()});
        }
        CHECK(scores[22] == -1);
        return scores;
      });
    }
  }
}

TEST_CASE("compress: a softmax per channel over any number of rows") {
  for (const int32_t n : {1, 4, 8, 128}) {
    for (const int32_t width : {5, 16, 40}) {
      const Floats data = random_floats(3 * n * width, 12, 4);
      std::vector<const float*> values, gates, biases;
      for (int32_t j = 0; j < n; ++j) {
        values.push_back(data.data() + 3 * j * width);
        gates.push_back(values.back() + width);
        biases.push_back(gates.back() + width);
      }
      compare(1e-5, [&](const Kernels& kernels) {
        Floats out(width);
        kernels.compress({values.data(), gates.data(), biases.data(), n, width, out.data()});
        return out;
      });
    }
  }
}

TEST_CASE("swiglu clamps before silu, whatever the place of a value") {
  const Floats gate = random_floats(77, 13, 3), up = random_floats(77, 14, 3);
  compare(2e-6, [&](const Kernels& kernels) {
    Floats out(77), alone(77);
    kernels.swiglu(gate.data(), up.data(), 1.5f, 77, out.data());
    for (int i = 0; i < 77; ++i) kernels.swiglu(&gate[i], &up[i], 1.5f, 1, &alone[i]);
    if (std::strcmp(kernels.name, "reference") != 0) CHECK(out == alone);
    return out;
  });
  const float large[2] = {500, -500}, ones[2] = {1, 1};
  for (const Kernels* kernels : usable_kernels()) {
    float out[2];
    kernels->swiglu(large, ones, 1e30f, 2, out);
    CHECK(out[0] == 500);
    CHECK(std::abs(out[1]) < 1e-30);
  }
}

TEST_CASE("softmax_terms: terms and their sum, whatever the count") {
  Floats x = random_floats(77, 17, 4);
  x[3] = std::numeric_limits<float>::lowest();
  const float largest = *std::max_element(x.begin(), x.end());
  for (const int64_t n : {5, 64, 77}) {
    Floats same_bits;  // of every table but the reference: terms, then the sum
    compare(2e-6, [&](const Kernels& kernels) {
      Floats terms(n);
      const float sum = kernels.softmax_terms(x.data(), largest, 0.7f, n, terms.data());
      CHECK(terms[3] == 0);
      if (std::strcmp(kernels.name, "reference") != 0) {
        if (same_bits.empty()) same_bits = terms, same_bits.push_back(sum);
        CHECK(std::equal(terms.begin(), terms.end(), same_bits.begin()));
        CHECK(sum == same_bits.back());
      }
      terms.push_back(sum / static_cast<float>(n));
      return terms;
    });
  }
}

TEST_CASE("weighted_sum and the bandwidth probe") {
  const Floats rows = random_floats(5 * 50, 15), weights = random_floats(4, 16);
  compare(1e-6, [&](const Kernels& kernels) {
    Floats out(43);
    kernels.weighted_sum(rows.data(), 50, weights.data(), 4, 43, out.data());
    return out;
  });
  // The probe sees every byte: changing any one changes its value.
  std::vector<unsigned char> bytes(300, 1);
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    const uint64_t before = kernels->read_bytes(bytes.data(), 300);
    for (const size_t at : {0, 127, 128, 299}) {
      bytes[at] ^= 0x40;
      CHECK(kernels->read_bytes(bytes.data(), 300) != before);
      bytes[at] ^= 0x40;
    }
  }
}
