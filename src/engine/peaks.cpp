#include "engine/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "offload/store/weight_memory.h"

namespace hearth {
namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPageBytes = 4096;
constexpr size_t kPieceBytes = size_t{8} << 20;
constexpr uint64_t kWeightBytesMin = uint64_t{1} << 30;  // more than caches hold
constexpr int64_t kMultiplyRounds = 1 << 16;             // a few milliseconds
constexpr int kRounds = 3;

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

PeakProbe::PeakProbe(const Engine& engine) : engine_(engine) {
  if (engine.holds_weights()) list_weights();
  uint64_t bytes = 0;
  for (const auto& piece : pieces_) bytes += piece.size();
  // Beside a cache no memory is taken: there, every byte of the budget has its use.
  if (bytes >= kWeightBytesMin || engine.cache() != nullptr) return;
  pieces_.clear();
  memory_ = Buffer(kBytes);
  // Pages differ, so that none can be merged with another.
  engine.workers().for_range(kBytes / kPageBytes, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t page = begin; page < end; ++page) {
      int64_t* words = memory_.as<int64_t>() + page * (kPageBytes / 8);
      std::fill(words, words + kPageBytes / 8, page);
    }
  });
  add_pieces({memory_.data(), memory_.bytes()});
}

// Of stacked experts as many as a token uses, spread over the stack; the cache's slots instead
// where experts are in one.
void PeakProbe::list_weights() {
  const ModelConfig& config = engine_.config();
  if (engine_.cache() != nullptr) add_pieces(engine_.cache()->memory());
  for (const auto& [name, tensor] : engine_.tensors().tensors) {
    const bool is_stack = is_expert_stack(tensor);
    if (is_stack && engine_.cache() != nullptr) continue;
    const int64_t parts = is_stack ? tensor.dims[2] : 1;
    const int64_t used = is_stack ? std::min<int64_t>(config.experts_used, parts) : 1;
    const uint64_t part_bytes = tensor.bytes / static_cast<uint64_t>(parts);
    for (int64_t i = 0; i < used; ++i) {
      const auto part = static_cast<uint64_t>(i * parts / used);
      add_pieces({tensor.data + part * part_bytes, part_bytes});
    }
  }
}

void PeakProbe::add_pieces(std::span<const unsigned char> bytes) {
  for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    pieces_.push_back(bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at)));
  }
}

Peaks PeakProbe::measure() const {
  const Workers& workers = engine_.workers();
  const Kernels& kernels = engine_.kernels();
  std::atomic<uint64_t> sum = 0;  // used, so that no read can be left out
  const double read = best_rate([&] {
    std::atomic<int64_t> bytes = 0;
    workers.for_range(std::ssize(pieces_), 1, [&](int64_t begin, int64_t, int) {
      const auto& piece = pieces_[begin];
      sum += kernels.read_bytes(piece.data(), std::ssize(piece));
      bytes += std::ssize(piece);
    });
    return static_cast<double>(bytes);
  });
  const double multiply = best_rate([&] {
    std::atomic<int64_t> done = 0;
    workers.for_range(workers.threads(), 1, [&](int64_t, int64_t, int) {
      done += kernels.multiply_registers(kMultiplyRounds);
    });
    return static_cast<double>(done);
  });
  return {read, multiply};
}

Peaks max(const Peaks& a, const Peaks& b) {
  return {std::max(a.read_gb_s, b.read_gb_s), std::max(a.matmul_gflop_s, b.matmul_gflop_s)};
}

}  // namespace hearth
