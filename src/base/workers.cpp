#include "base/workers.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/check.h"

namespace hearth {
namespace {

// The pieces of one node that no thread has taken yet; a cache line of its own.
struct alignas(64) Share {
  std::atomic<int64_t> next;
  int64_t end;
};

// The pieces of a loop, by node.
class Pieces {
 public:
  Pieces(int64_t count, const NodeShares& shares) : nodes_(shares.nodes()) {
    for (int node = 0; node < nodes_; ++node) {
      shares_[node].next.store(shares.begin(count, node), std::memory_order_relaxed);
      shares_[node].end = shares.begin(count, node + 1);
    }
  }

  // A piece that nobody has: of this node's share as long as there is one; -1 when all are taken.
  int64_t take(int node) {
    for (int i = 0; i < nodes_; ++i) {
      Share& share = shares_[(node + i) % nodes_];
      if (share.next.load(std::memory_order_relaxed) >= share.end) continue;
      const int64_t piece = share.next.fetch_add(1, std::memory_order_relaxed);
      if (piece < share.end) return piece;
    }
    return -1;
  }

 private:
  const int nodes_;
  Share shares_[NodeShares::kNodesMax];
};

}  // namespace

NodeShares::NodeShares(const std::vector<int>& threads) : before_{0} {
  for (const int n : threads) before_.push_back(before_.back() + n);
  HEARTH_CHECK(nodes() <= kNodesMax && before_.back() > 0 && std::ranges::is_sorted(before_));
}

NodeShares NodeShares::even(int threads, int nodes) {
  std::vector<int> each;
  for (int node = 0; node < nodes; ++node) {
    each.push_back(threads * (node + 1) / nodes - threads * node / nodes);
  }
  return NodeShares(each);
}

int NodeShares::node_of(int thread) const {
  return static_cast<int>(std::ranges::upper_bound(before_, thread) - before_.begin()) - 1;
}

std::string NodeShares::text() const {
  std::string text = fmt::format("{} thread{}", threads(), threads() == 1 ? "" : "s");
  if (nodes() == 1) return text;
  for (int node = 0; node < nodes(); ++node) {
    text += fmt::format("{}{}", node == 0 ? ", " : " + ", threads_of(node));
  }
  return text + " on the NUMA nodes";
}

void Workers::on_each_thread(const std::function<void(int)>& body) const {
#pragma omp parallel num_threads(threads_)
  body(omp_get_thread_num());
}

// Always the whole team, but for a single piece: OpenMP ends the threads that a smaller one leaves
// over.
template <typename F>
void Workers::on_team(int64_t pieces, F&& body) const noexcept {
  [[maybe_unused]] const bool alone = pieces <= 1 || threads_ == 1;
#pragma omp parallel num_threads(threads_) if (!alone)
  body(omp_get_thread_num());
}

void Workers::run_ranges(int64_t count, int64_t grain, LoopBody body) const noexcept {
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = (count + grain - 1) / grain;
  Pieces rest(pieces, shares_);
  on_team(pieces, [&](int thread) {
    for (int64_t piece; (piece = rest.take(node_of(thread))) >= 0;) {
      body(piece * grain, std::min((piece + 1) * grain, count), thread);
      if (thread == 0 && between_pieces_) between_pieces_();
    }
  });
}

void Workers::run_pieces(int64_t count, LoopBody body) const noexcept {
  Pieces rest(count, shares_);
  on_team(count, [&](int thread) {
    for (int64_t piece = rest.take(node_of(thread)); piece >= 0;) {
      const int64_t next = rest.take(node_of(thread));
      body(piece, next, thread);
      if (thread == 0 && between_pieces_) between_pieces_();
      piece = next;
    }
  });
}

}  // namespace hearth
