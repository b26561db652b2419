#include "engine/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>

#include "base/buffer.h"

namespace hearth {
namespace {

constexpr int kRounds = 5;  // the best counts: a peak is what the machine can do when left alone

template <typename F>
double best_seconds(F&& run) {
  double best = 1e30;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  return best;
}

// GFLOP/s of one matrix type on operands that stay in a core's cache: every worker its own product.
double measure_type(const Engine& engine, TensorType type) {
  constexpr int64_t kRows = 64, kCols = 1024, kTokens = 64, kRepeats = 64;
  const Kernels& kernels = engine.kernels();
  const int threads = engine.workers().threads();
  Buffer weights(static_cast<size_t>(kRows * row_bytes(type, kCols)));
  Buffer x(kTokens * kCols * sizeof(float));
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int64_t i = 0; i < kTokens * kCols; ++i) x.as<float>()[i] = uniform(random);
  Buffer codes(kTokens * kCols), scales(kTokens * kCols / 8), sums(kTokens * kCols / 4);
  const QuantizedRows rounded{codes.as<int8_t>(), scales.as<float>(), sums.as<float>()};
  kernels.quantize(x.as<float>(), kTokens, kCols, rounded);
  Buffer y(static_cast<size_t>(threads) * kTokens * kRows * sizeof(float));

  const double seconds = best_seconds([&] {
    engine.workers().for_range(threads, 1, [&](int64_t begin, int64_t, int) {
      for (int64_t repeat = 0; repeat < kRepeats; ++repeat) {
        kernels.matmul({.w = {type, kRows, kCols, weights.data()},
                        .x = x.as<float>(),
                        .xq = rounded,
                        .x_rows = nullptr,
                        .n = kTokens,
                        .y = y.as<float>() + begin * kTokens * kRows,
                        .y_rows = nullptr,
                        .y_stride = kRows,
                        .row_begin = 0,
                        .row_end = kRows});
      }
    });
  });
  return 2e-9 * kRows * kCols * kTokens * kRepeats * threads / seconds;
}

}  // namespace

double measure_read_gb_s(const Engine& engine) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  constexpr int64_t kPiece = int64_t{1} << 20;
  Buffer memory(kBytes);
  engine.workers().for_range(kBytes / kPiece, 1, [&](int64_t begin, int64_t end, int) {
    std::fill(memory.data() + begin * kPiece, memory.data() + end * kPiece, 1);
  });
  std::atomic<uint64_t> sum = 0;  // used, so that no read can be left out
  const double seconds = best_seconds([&] {
    engine.workers().for_range(kBytes / kPiece, 8, [&](int64_t begin, int64_t end, int) {
      sum += engine.kernels().read_bytes(memory.data() + begin * kPiece, (end - begin) * kPiece);
    });
  });
  return static_cast<double>(kBytes) / seconds * 1e-9;
}

double measure_matmul_gflop_s(const Engine& engine) {
  return std::max(measure_type(engine, TensorType::kF32), measure_type(engine, TensorType::kQ8_0));
}

}  // namespace hearth
