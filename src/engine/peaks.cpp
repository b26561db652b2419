#include "engine/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace hearth {
namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPageBytes = 4096;
constexpr int64_t kPieceBytes = int64_t{8} << 20;
constexpr int64_t kMultiplyRounds = 1 << 16;  // a few milliseconds
constexpr int kRounds = 2;

template <typename F>
double best_rate(F&& run) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const double work = run();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, work / taken.count() * 1e-9);
  }
  return best;
}

}  // namespace

PeakProbe::PeakProbe(const Kernels& kernels, const Workers& workers)
    : kernels_(kernels), workers_(workers), memory_(kBytes) {
  // Pages differ, so that none can be merged with another.
  workers_.for_range(kBytes / kPageBytes, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t page = begin; page < end; ++page) {
      int64_t* words = memory_.as<int64_t>() + page * (kPageBytes / 8);
      std::fill(words, words + kPageBytes / 8, page);
    }
  });
}

Peaks PeakProbe::measure() const {
  std::atomic<uint64_t> sum = 0;  // used, so that no read can be left out
  const double read = best_rate([&] {
    workers_.for_range(kBytes, kPieceBytes, [&](int64_t begin, int64_t end, int) {
      sum += kernels_.read_bytes(memory_.data() + begin, end - begin);
    });
    return static_cast<double>(kBytes);
  });
  const double multiply = best_rate([&] {
    std::atomic<int64_t> done = 0;
    workers_.for_range(workers_.threads(), 1, [&](int64_t, int64_t, int) {
      done += kernels_.multiply_registers(kMultiplyRounds);
    });
    return static_cast<double>(done);
  });
  return {read, multiply};
}

Peaks max(const Peaks& a, const Peaks& b) {
  return {std::max(a.read_gb_s, b.read_gb_s), std::max(a.matmul_gflop_s, b.matmul_gflop_s)};
}

}  // namespace hearth
