#include "engine/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>

namespace hearth {
namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
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

Peaks::Peaks(const Kernels& kernels, const Workers& workers)
    : kernels_(kernels), workers_(workers), memory_(kBytes) {
  workers_.for_range(kBytes, kPieceBytes, [&](int64_t begin, int64_t end, int) {
    std::fill(memory_.data() + begin, memory_.data() + end, 1);
  });
}

void Peaks::measure() {
  std::atomic<uint64_t> sum = 0;  // used, so that no read can be left out
  read_gb_s_ =
      std::max(read_gb_s_, best_rate([&] {
                 workers_.for_range(kBytes, kPieceBytes, [&](int64_t begin, int64_t end, int) {
                   sum += kernels_.read_bytes(memory_.data() + begin, end - begin);
                 });
                 return static_cast<double>(kBytes);
               }));
  matmul_gflop_s_ =
      std::max(matmul_gflop_s_, best_rate([&] {
                 std::atomic<int64_t> done = 0;
                 workers_.for_range(workers_.threads(), 1, [&](int64_t, int64_t, int) {
                   done += kernels_.multiply_registers(kMultiplyRounds);
                 });
                 return static_cast<double>(done);
               }));
}

}  // namespace hearth
