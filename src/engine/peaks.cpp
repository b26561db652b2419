#include "engine/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string_view>

#include "offload/store/weight_memory.h"

namespace hearth {
namespace {

constexpr int64_t kBytes = int64_t{2} << 30;
constexpr int64_t kPageBytes = 4096;
constexpr size_t kPieceBytes = size_t{8} << 20;
constexpr uint64_t kWeightBytesMin = uint64_t{1} << 30;  // more than caches hold
constexpr int64_t kMultiplyRounds = 1 << 16;             // a few milliseconds
constexpr int kRounds = 3;
constexpr std::string_view kEmbedding = "token_embd.weight";

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

PeakProbe::PeakProbe(const Engine& engine) : engine_(engine) {
  if (!engine.reads_files()) list_weights();
  draw_experts();
  uint64_t bytes = 0;
  for (const auto& piece : pieces_) bytes += piece.size();
  // Beside a cache no memory is taken: there, every byte of the budget has its use.
  if (bytes >= kWeightBytesMin || engine.cache() != nullptr) return;
  pieces_.clear();
  stacks_.clear();
  memory_ = Buffer(kBytes);
  // Pages differ, so that none can be merged with another.
  engine.workers().for_range(kBytes / kPageBytes, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t page = begin; page < end; ++page) {
      int64_t* words = memory_.as<int64_t>() + page * (kPageBytes / 8);
      std::fill(words, words + kPageBytes / 8, page);
    }
  });
  add_pieces({memory_.data(), memory_.bytes()});
  dense_pieces_ = pieces_.size();
}

// Where experts are in a cache, its slots stand for them. Of the embedding a token reads one row.
void PeakProbe::list_weights() {
  if (engine_.cache() != nullptr) add_pieces(engine_.cache()->memory());
  for (const auto& [name, tensor] : engine_.tensors().tensors) {
    if (is_expert_stack(tensor)) {
      if (engine_.cache() == nullptr) stacks_.push_back(&tensor);
    } else if (name != kEmbedding) {
      add_pieces({tensor.data, tensor.bytes});
    }
  }
  dense_pieces_ = pieces_.size();
}

// Others for each round, as for each token: what lies in caches from the round before would count
// as memory.
void PeakProbe::draw_experts() {
  pieces_.resize(dense_pieces_);
  for (const TensorEntry* stack : stacks_) {
    const auto experts = static_cast<uint64_t>(stack->dims[2]);
    const uint64_t bytes = stack->bytes / experts;
    for (int32_t i = 0; i < engine_.config().experts_used; ++i) {
      add_pieces({stack->data + random_() % experts * bytes, bytes});
    }
  }
}

void PeakProbe::add_pieces(std::span<const unsigned char> bytes) {
  for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    pieces_.push_back(bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at)));
  }
}

// Seconds that all workers need to read pieces first .. last - 1.
double PeakProbe::read(size_t first, size_t last) const {
  std::atomic<uint64_t> sum = 0;  // used, so that no read can be left out
  const auto start = Clock::now();
  engine_.workers().for_range(
      static_cast<int64_t>(last - first), 1, [&](int64_t begin, int64_t, int) {
        const auto& piece = pieces_[first + static_cast<size_t>(begin)];
        sum += engine_.kernels().read_bytes(piece.data(), std::ssize(piece));
      });
  return seconds_since(start) + (sum == 1 ? 1e-9 : 0);
}

Peaks PeakProbe::measure() {
  Peaks best;
  for (int round = 0; round < kRounds; ++round) {
    draw_experts();
    const double dense_bytes = bytes_of(0, dense_pieces_);
    const double expert_bytes = bytes_of(dense_pieces_, pieces_.size());
    const double dense = read(0, dense_pieces_);
    const double experts = expert_bytes > 0 ? read(dense_pieces_, pieces_.size()) : 0;
    const double dense_gb_s = dense_bytes / dense * 1e-9;
    best =
        max(best, {(dense_bytes + expert_bytes) / (dense + experts) * 1e-9, dense_gb_s,
                   experts > 0 ? expert_bytes / experts * 1e-9 : dense_gb_s, multiply_gflop_s()});
  }
  return best;
}

double PeakProbe::bytes_of(size_t first, size_t last) const {
  size_t bytes = 0;
  for (size_t i = first; i < last; ++i) bytes += pieces_[i].size();
  return static_cast<double>(bytes);
}

double PeakProbe::multiply_gflop_s() const {
  const Workers& workers = engine_.workers();
  std::atomic<int64_t> done = 0;
  const auto start = Clock::now();
  workers.for_range(workers.threads(), 1, [&](int64_t, int64_t, int) {
    done += engine_.kernels().multiply_registers(kMultiplyRounds);
  });
  return static_cast<double>(done) / seconds_since(start) * 1e-9;
}

Peaks max(const Peaks& a, const Peaks& b) {
  return {std::max(a.read_gb_s, b.read_gb_s), std::max(a.dense_gb_s, b.dense_gb_s),
          std::max(a.experts_gb_s, b.experts_gb_s), std::max(a.matmul_gflop_s, b.matmul_gflop_s)};
}

}  // namespace hearth
