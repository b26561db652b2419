#include "base/workers.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace hearth {
namespace {

constexpr int kNodesMax = 64;

// The pieces of one node that no thread has taken yet; a cache line of its own.
struct alignas(64) Share {
  std::atomic<int64_t> next;
  int64_t end;
};

}  // namespace

void Workers::on_each_thread(const std::function<void(int)>& body) const {
#pragma omp parallel num_threads(threads_)
  body(omp_get_thread_num());
}

void Workers::run(int64_t count, int64_t grain, RangeBody body) const noexcept {
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = (count + grain - 1) / grain;
  const int nodes = std::min(nodes_, kNodesMax);
  Share shares[kNodesMax];
  for (int node = 0; node < nodes; ++node) {
    shares[node].next.store(node_share_begin(pieces, node, nodes), std::memory_order_relaxed);
    shares[node].end = node_share_begin(pieces, node + 1, nodes);
  }
  // Always the whole team: OpenMP ends the threads that a smaller one leaves over.
  [[maybe_unused]] const bool alone = pieces <= 1 || threads_ == 1;
#pragma omp parallel num_threads(threads_) if (!alone)
  {
    const int thread = omp_get_thread_num();
    for (int i = 0; i < nodes; ++i) {
      Share& share = shares[(node_of(thread) + i) % nodes];
      for (int64_t piece;
           (piece = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
        const int64_t begin = piece * grain;
        body(begin, std::min(begin + grain, count), thread);
        if (thread == 0 && between_pieces_) between_pieces_();
      }
    }
  }
}

}  // namespace hearth
