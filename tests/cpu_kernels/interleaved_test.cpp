// Matmul over interleaved rows.
#include <numeric>

#include "cpu_kernels/matmul_case.h"
#include "cpu_kernels/tile_tables.h"

using namespace hearth;
using namespace hearth::test;

namespace {

std::vector<const Kernels*> tables() {
  std::vector<const Kernels*> all = tile_tables();
  for (const Kernels* kernels : usable_kernels()) {
    if (kernels->reads_interleaved && !kernels->reads_bfloat16) all.push_back(kernels);
  }
  return all;
}

constexpr TensorType kTypes[] = {TensorType::kMXFP4, TensorType::kQ2_K, TensorType::kQ4_K};

}  // namespace

TEST_CASE("interleaved rows take turns, a word each") {
  for (const TensorType type : kTypes) {
    Case c(type, 32, 512, 1, 3);
    c.interleave();
    const int64_t bytes = row_bytes(type, 512);
    if (type == TensorType::kMXFP4) {  // exponents of eight blocks first
      for (int64_t at = 0; at < 32 * bytes; at += 8 * 17) {
        unsigned char step[8 * 17];
        std::memcpy(step, c.weights.data() + at, sizeof(step));
        for (int b = 0; b < 8; ++b) {
          c.weights[at + b] = step[17 * b];
          std::memcpy(c.weights.data() + at + 8 + 16 * b, step + 17 * b + 1, 16);
        }
      }
    }
    int64_t wrong = 0;
    for (int64_t row = 0; row < 32; ++row) {
      for (int64_t i = 0; i < bytes; ++i) {
        const int64_t at = row / 16 * 16 * bytes + i / 4 * 64 + row % 16 * 4 + i % 4;
        wrong += (*c.interleaved)[at] != c.weights[row * bytes + i];
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("formats and shapes that are not interleaved") {
  CHECK(can_interleave(TensorType::kQ4_K, 32, 256));
  CHECK(can_interleave(TensorType::kMXFP4, 32, 16384));
  CHECK_FALSE(can_interleave(TensorType::kQ4_K, 24, 256));
  CHECK_FALSE(can_interleave(TensorType::kQ5_K, 32, 256));
  CHECK_FALSE(can_interleave(TensorType::kMXFP4, 32, 32));
  CHECK_FALSE(can_interleave(TensorType::kMXFP4, 32, 16640));
  CHECK_FALSE(choose_kernels("reference").reads_interleaved);
}

TEST_CASE("products of interleaved rows are those of stored ones, to the bit") {
  for (const Kernels* kernels : tables()) {
    for (const TensorType type : kTypes) {
      for (const int64_t k : {256, 2304, 4096}) {
        for (const int64_t n : {1, 2, 3, 4, 5, 8, 17, 40, 200}) {
          Case c(type, 272, k, n, static_cast<uint32_t>(n * 1000 + k));
          c.round(*kernels);
          CAPTURE(kernels->name);
          CAPTURE(type_info(type).name);
          CAPTURE(k);
          CAPTURE(n);
          std::vector<int32_t> rows(n);
          std::iota(rows.rbegin(), rows.rend(), 0);
          for (const bool prefill : {false, true}) {
            c.prefill = prefill;
            c.round(*kernels);
            for (const auto& [begin, end] : {std::pair{0, 272}, {16, 48}}) {
              const std::vector<float> stored = c.run(*kernels, n, rows.data(), begin, end);
              c.interleave();
              CHECK(c.run(*kernels, n, rows.data(), begin, end) == stored);
              c.interleaved.reset();
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the largest codes, scales and activations of interleaved rows") {
  for (const Kernels* kernels : tables()) {
    for (const TensorType type : kTypes) {
      for (const int fill : {0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0}) {
        Case c(type, 16, 512, 1, 1);
        Random random(2);
        std::memset(c.weights.data(), fill, 16 * row_bytes(type, 512));
        make_valid(type, c.weights.data(), 16 * row_bytes(type, 512), random);
        for (int64_t i = 0; i < 512; ++i) c.x[i] = i / 64 % 2 == 0 ? 1.0f : -1.0f;
        c.round();
        c.interleave();
        CAPTURE(fill);
        CHECK(c.error(c.run(*kernels, 1, nullptr, 0, 16), 1) < 2e-6);
      }
    }
  }
}
