#include "cpu_kernels/matmul_case.h"

using namespace hearth;
using namespace hearth::test;

namespace {

std::vector<int64_t> widths(TensorType type) {
  const int block = type_info(type).block_size;
  if (block == 1) return {1, 7, 33, 512, 1000};
  if (block == 32) return {32, 64, 256, 512, 1056, 2080, 4096};
  return {256, 512, 2304, 4096};
}

std::vector<const Kernels*> fast_kernels() {
  std::vector<const Kernels*> all(usable_kernels().begin(), usable_kernels().end());
  all.pop_back();
  return all;
}

template <typename F>
void for_all_types(F&& body) {
  for (const TensorType type : kPlainTypes) body(type);
  for (const TensorType type : kBlockTypes) body(type);
}

}  // namespace

TEST_CASE("the reference matmul is the formats' definition") {
  const Kernels& reference = choose_kernels("reference");
  for_all_types([&](TensorType type) {
    Case c(type, 3, type_info(type).block_size == 1 ? 37 : 512, 2, 7);
    CHECK_MESSAGE(c.error(c.run(reference, 2, nullptr, 0, 3), 2) < 1e-7, type_info(type).name);
  });
}

TEST_CASE("every instruction set multiplies every weight format") {
  for (const Kernels* kernels : fast_kernels()) {
    REQUIRE(&choose_kernels(kernels->name) == kernels);
    for_all_types([&](TensorType type) {
      for (const int64_t k : widths(type)) {
        for (const int64_t n : {1, 2, 3, 4, 5, 7, 16, 33}) {
          Case c(type, n == 5 ? 1 : 19, k, n, static_cast<uint32_t>(n * 1000 + k));
          CAPTURE(kernels->name);
          CAPTURE(type_info(type).name);
          CAPTURE(k);
          CAPTURE(n);
          CHECK(c.error(c.run(*kernels, n, nullptr, 0, c.rows), n) < 2e-6);
        }
      }
    });
  }
}

TEST_CASE("a result does not depend on the batch, the range or the other rows") {
  for (const Kernels* kernels : fast_kernels()) {
    for_all_types([&](TensorType type) {
      for (const int64_t k : {widths(type)[2], widths(type).back()}) {
        const int64_t rows = 37, tokens = 70;
        Case c(type, rows, k, tokens, 99);
        const std::vector<float> all = c.run(*kernels, tokens, nullptr, 0, rows);
        bool same = true;
        auto compare = [&](const std::vector<int32_t>& gather, int64_t begin, int64_t end) {
          const int64_t n = static_cast<int64_t>(gather.size());
          const std::vector<float> y = c.run(*kernels, n, gather.data(), begin, end);
          for (int64_t i = 0; i < n; ++i) {
            const float* expected = &all[gather[i] * c.stride()];
            same &=
                std::memcmp(&y[i * c.stride() + begin], expected + begin, (end - begin) * 4) == 0;
          }
        };
        for (int32_t i = 0; i < 5; ++i) compare({i * 17}, 0, rows);
        compare({3}, 5, 6);
        compare({8, 1}, 0, rows);
        compare({69, 0, 69}, 2, 37);
        compare({1, 2, 3, 4}, 0, 17);
        compare({60, 50, 40, 30, 20}, 1, 36);
        compare({0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20}, 0, 16);
        std::vector<int32_t> reversed;
        for (int32_t i = tokens; i-- > 0;) reversed.push_back(i);
        compare(reversed, 7, 30);
        // Written to the rows it was read from, a permuted batch is the plain one.
        same &= c.run(*kernels, tokens, reversed.data(), 0, rows, reversed.data()) == all;
        const std::vector<int32_t> swapped = {1, 0};
        const std::vector<float> two = c.run(*kernels, 2, swapped.data(), 0, rows, swapped.data());
        same &= std::equal(two.begin(), two.end(), all.begin());
        CHECK_MESSAGE(same, kernels->name << " " << type_info(type).name << " k " << k);
      }
    });
  }
}

TEST_CASE("nothing saturates at the largest codes") {
  for (const Kernels* kernels : fast_kernels()) {
    for (const TensorType type : kBlockTypes) {
      for (const int fill : {0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0, 0x88}) {
        for (const int64_t n : {1, 9}) {
          Case c(type, 5, 512, n, 1);
          Random random(2);
          std::memset(c.weights.data(), fill, 5 * row_bytes(type, 512));
          make_valid(type, c.weights.data(), 5 * row_bytes(type, 512), random);
          for (int64_t i = 0; i < n * 512; ++i) c.x[i] = i / 64 % 2 == 0 ? 1.0f : -1.0f;
          c.round();
          CAPTURE(kernels->name);
          CAPTURE(type_info(type).name);
          CAPTURE(fill);
          CHECK(c.error(c.run(*kernels, n, nullptr, 0, 5), n) < 2e-6);
        }
      }
    }
  }
}

TEST_CASE("the smallest MXFP4 scales are not flushed to zero") {
  for (const Kernels* kernels : fast_kernels()) {
    for (const int64_t n : {1, 9}) {
      Case c(TensorType::kMXFP4, 17, 256, n, 5);
      for (int64_t block = 0; block < 17 * 8; ++block) {
        c.weights[block * 17] = static_cast<unsigned char>(block / 8 % 4);
      }
      for (int64_t i = 0; i < n * 256; ++i) c.x[i] *= 0x1p20f;
      c.round();
      CHECK(c.error(c.run(*kernels, n, nullptr, 0, 17), n) < 2e-6);
    }
  }
}

TEST_CASE("an empty batch and an empty range write nothing") {
  for (const Kernels* kernels : usable_kernels()) {
    for (const TensorType type : {TensorType::kF16, TensorType::kMXFP4}) {
      Case c(type, 4, 64, 9, 3);
      c.run(*kernels, 0, nullptr, 0, 4);
      c.run(*kernels, 1, nullptr, 2, 2);
      c.run(*kernels, 9, nullptr, 4, 4);
    }
  }
}
