#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/check.h"
#include "cpu_kernels/registry.h"
#include "format/dequantize.h"

using namespace hearth;

namespace {

using Random = std::mt19937;

// An array that ends where unreadable memory begins: a kernel that reads past it crashes.
template <typename T>
class Guarded {
 public:
  explicit Guarded(size_t count) {
    const size_t page = sysconf(_SC_PAGESIZE), bytes = count * sizeof(T);
    size_ = (bytes + page - 1) / page * page + page;
    void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    HEARTH_CHECK(memory != MAP_FAILED);
    base_ = static_cast<char*>(memory);
    HEARTH_CHECK(mprotect(base_ + size_ - page, page, PROT_NONE) == 0);
    data_ = reinterpret_cast<T*>(base_ + size_ - page - bytes);
  }
  ~Guarded() { munmap(base_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() { return data_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  char* base_;
  size_t size_;
  T* data_;
};

const std::vector<TensorType> kPlainTypes = {TensorType::kF32, TensorType::kF16, TensorType::kBF16};
const std::vector<TensorType> kBlockTypes = {
    TensorType::kQ4_0,   TensorType::kQ4_1,    TensorType::kQ5_0,    TensorType::kQ5_1,
    TensorType::kQ8_0,   TensorType::kQ2_K,    TensorType::kQ3_K,    TensorType::kQ4_K,
    TensorType::kQ5_K,   TensorType::kQ6_K,    TensorType::kIQ2_XXS, TensorType::kIQ2_XS,
    TensorType::kIQ2_S,  TensorType::kIQ3_XXS, TensorType::kIQ3_S,   TensorType::kIQ4_NL,
    TensorType::kIQ4_XS, TensorType::kMXFP4};

// Where a block holds half floats, which random bytes would make infinite.
std::vector<int> half_offsets(TensorType type) {
  switch (type) {
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return {0, 2};
    case TensorType::kQ2_K:
      return {80, 82};
    case TensorType::kQ3_K:
      return {108};
    case TensorType::kQ6_K:
      return {208};
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kMXFP4:
      return {};
    default:
      return {0};
  }
}

// Valid weights from arbitrary bytes: scales become small numbers.
void make_valid(TensorType type, unsigned char* data, int64_t bytes, Random& random) {
  std::normal_distribution<float> normal;
  auto put = [](unsigned char* at, auto value) { std::memcpy(at, &value, sizeof(value)); };
  const TypeInfo& info = type_info(type);
  for (int64_t at = 0; at < bytes; at += info.block_bytes) {
    const float value = normal(random);
    if (type == TensorType::kF32) put(data + at, value);
    if (type == TensorType::kF16) put(data + at, float_to_half(value));
    if (type == TensorType::kBF16) put(data + at, float_to_bfloat16(value));
    if (type == TensorType::kMXFP4) data[at] = static_cast<unsigned char>(118 + random() % 12);
    for (const int offset : half_offsets(type)) {
      put(data + at + offset, float_to_half(0.01f * normal(random)));
    }
  }
}

// A matrix and activations, plain and rounded.
struct Case {
  Case(TensorType weight_type, int64_t row_count, int64_t columns, int64_t x_row_count,
       uint32_t seed)
      : type(weight_type),
        rows(row_count),
        k(columns),
        x_rows(x_row_count),
        weights(rows * row_bytes(type, k)),
        x(x_rows * k),
        codes(x_rows * k),
        scales(x_rows * k / 32),
        sums(x_rows * k / 16) {
    Random random(seed);
    for (int64_t i = 0; i < rows * row_bytes(type, k); ++i)
      weights[i] = static_cast<unsigned char>(random());
    make_valid(type, weights.data(), rows * row_bytes(type, k), random);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < x_rows * k; ++i) x[i] = normal(random) + 0.5f;
    round();
  }

  void round() {
    if (!reads_quantized(type)) return;
    choose_kernels("reference")
        .quantize(x.data(), x_rows, k, {codes.data(), scales.data(), sums.data(), nullptr, 0});
  }

  int64_t stride() const { return rows + 3; }

  // y of `n` tokens. Checks that only [begin, end) of each row is written.
  std::vector<float> run(const Kernels& kernels, int64_t n, const int32_t* gather, int64_t begin,
                         int64_t end, const int32_t* scatter = nullptr) {
    const float untouched = -12345.0f;
    std::vector<float> y(n * stride(), untouched);
    kernels.matmul({.w = {type, rows, k, weights.data()},
                    .x = x.data(),
                    .xq = {codes.data(), scales.data(), sums.data(), nullptr, 0},
                    .x_rows = gather,
                    .n = n,
                    .y = y.data(),
                    .y_rows = scatter,
                    .y_stride = stride(),
                    .row_begin = begin,
                    .row_end = end});
    int64_t written = 0;
    for (int64_t i = 0; i < n * stride(); ++i) {
      const bool inside = i % stride() >= begin && i % stride() < end;
      written += y[i] != untouched ? 1 : 0;
      if (!inside && y[i] != untouched) FAIL("wrote outside the range");
    }
    CHECK(written == n * (end - begin));
    return y;
  }

  double activation(int64_t row, int64_t j) {
    const int64_t at = row * k + j;
    return reads_quantized(type) ? static_cast<double>(scales[at / 32]) * codes[at] : x[at];
  }

  // The largest |y - truth| / sum |w||x|, the truth from the format's own definition.
  double error(const std::vector<float>& y, int64_t n) {
    std::vector<float> w(k);
    double worst = 0;
    for (int64_t r = 0; r < rows; ++r) {
      dequantize(type, weights.data() + r * row_bytes(type, k), k, w.data());
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0, magnitude = 0;
        for (int64_t j = 0; j < k; ++j) {
          sum += w[j] * activation(i, j);
          magnitude += std::abs(w[j] * activation(i, j));
        }
        const double value = y[i * stride() + r];
        const double off = std::abs(value - sum);
        if (!(off <= 1e30)) return 1e30;
        if (off > 0) worst = std::max(worst, off / magnitude);
      }
    }
    return worst;
  }

  TensorType type;
  int64_t rows, k, x_rows;
  Guarded<unsigned char> weights;
  Guarded<float> x;
  Guarded<int8_t> codes;
  Guarded<float> scales, sums;
};

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
