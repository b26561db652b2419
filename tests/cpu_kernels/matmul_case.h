// A matrix of random weights with activations, in memory that ends where it says, for the tests of
// matmul.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "base/check.h"
#include "cpu_kernels/registry.h"
#include "format/dequantize.h"
#include "format/interleave.h"

namespace hearth::test {

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

inline const std::vector<TensorType> kPlainTypes = {TensorType::kF32, TensorType::kF16,
                                                    TensorType::kBF16, TensorType::kF8_E4M3};
inline const std::vector<TensorType> kBlockTypes = {
    TensorType::kQ4_0,   TensorType::kQ4_1,    TensorType::kQ5_0,    TensorType::kQ5_1,
    TensorType::kQ8_0,   TensorType::kQ2_K,    TensorType::kQ3_K,    TensorType::kQ4_K,
    TensorType::kQ5_K,   TensorType::kQ6_K,    TensorType::kIQ2_XXS, TensorType::kIQ2_XS,
    TensorType::kIQ2_S,  TensorType::kIQ3_XXS, TensorType::kIQ3_S,   TensorType::kIQ4_NL,
    TensorType::kIQ4_XS, TensorType::kMXFP4};

// Where a block holds half floats, which random bytes would make infinite.
inline std::vector<int> half_offsets(TensorType type) {
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
    case TensorType::kF8_E4M3:
    case TensorType::kMXFP4:
      return {};
    default:
      return {0};
  }
}

// Valid weights from arbitrary bytes: scales become small numbers.
inline void make_valid(TensorType type, unsigned char* data, int64_t bytes, Random& random) {
  std::normal_distribution<float> normal;
  auto put = [](unsigned char* at, auto value) { std::memcpy(at, &value, sizeof(value)); };
  const TypeInfo& info = type_info(type);
  for (int64_t at = 0; at < bytes; at += info.block_bytes) {
    const float value = normal(random);
    if (type == TensorType::kF32) put(data + at, value);
    if (type == TensorType::kF16) put(data + at, float_to_half(value));
    if (type == TensorType::kBF16) put(data + at, float_to_bfloat16(value));
    if (type == TensorType::kMXFP4) data[at] = static_cast<unsigned char>(118 + random() % 12);
    if (type == TensorType::kF8_E4M3) {
      data[at] = static_cast<unsigned char>(110 + random() % 12);
      for (int i = 1; i <= 128; ++i) {
        if ((data[at + i] & 0x7f) == 0x7f) data[at + i] ^= 1;  // NaN
      }
    }
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
        sums(x_rows * k / 16),
        bfloat16s(x_rows * bfloat16_stride() - 32) {
    Random random(seed);
    for (int64_t i = 0; i < rows * row_bytes(type, k); ++i)
      weights[i] = static_cast<unsigned char>(random());
    make_valid(type, weights.data(), rows * row_bytes(type, k), random);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < x_rows * k; ++i) x[i] = normal(random) + 0.5f;
    round();
  }

  RoundedRows rounded() {
    return {codes.data(), scales.data(), sums.data(), bfloat16s.data(), bfloat16_stride()};
  }
  void round(const Kernels& kernels = choose_kernels("reference")) {
    if (reads_rounded(kernels, {type, rows, k, nullptr}, prefill))
      kernels.quantize(x.data(), x_rows, k, rounded());
  }

  // From here on kernels are given the rows interleaved.
  void interleave() {
    const int64_t bytes = kInterleavedRows * row_bytes(type, k);
    interleaved = std::make_unique<Guarded<unsigned char>>(rows / kInterleavedRows * bytes);
    std::vector<unsigned char> scratch(bytes);
    std::copy_n(weights.data(), rows * row_bytes(type, k), interleaved->data());
    for (int64_t row = 0; row < rows; row += kInterleavedRows) {
      interleave_rows(type, k, interleaved->data() + row * row_bytes(type, k), scratch.data());
    }
  }
  Matrix matrix() {
    const bool turns = interleaved != nullptr;
    return {type, rows, k, turns ? interleaved->data() : weights.data(), turns};
  }

  int64_t stride() const { return rows + 3; }
  int64_t bfloat16_stride() const { return k + 32; }

  // y of `n` tokens. Checks that only [begin, end) of each row is written.
  std::vector<float> run(const Kernels& kernels, int64_t n, const int32_t* gather, int64_t begin,
                         int64_t end, const int32_t* scatter = nullptr) {
    const float untouched = -12345.0f;
    std::vector<float> y(n * stride(), untouched);
    kernels.matmul({.w = matrix(),
                    .x = x.data(),
                    .xq = rounded(),
                    .x_rows = gather,
                    .n = n,
                    .y = y.data(),
                    .y_rows = scatter,
                    .y_stride = stride(),
                    .row_begin = begin,
                    .row_end = end,
                    .prefill = prefill});
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
  bool prefill = false;
  int64_t rows, k, x_rows;
  Guarded<unsigned char> weights;  // as stored
  std::unique_ptr<Guarded<unsigned char>> interleaved;
  Guarded<float> x;
  Guarded<int8_t> codes;
  Guarded<float> scales, sums;
  Guarded<uint16_t> bfloat16s;  // without what would follow the last row
};

}  // namespace hearth::test
