// The compute threads: fork-join loops over ranges. One loop runs at a time; the caller takes part.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace hearth {

// A borrowed callable void(int64_t, int64_t, int thread); it must not throw.
class LoopBody {
 public:
  template <typename F>
  LoopBody(F& body)  // NOLINT: implicit, so that a lambda can be passed
      : object_(&body), call_([](void* object, int64_t a, int64_t b, int thread) {
          (*static_cast<F*>(object))(a, b, thread);
        }) {}
  void operator()(int64_t a, int64_t b, int thread) const { call_(object_, a, b, thread); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int64_t, int);
};

// What each NUMA node gets of the things that threads share in order, pieces of work or rows of a
// matrix: as much as it has of the threads, which are numbered node after node.
class NodeShares {
 public:
  static constexpr int kNodesMax = 64;

  // Threads of each node, at least one in all.
  explicit NodeShares(const std::vector<int>& threads);
  static NodeShares even(int threads, int nodes);

  int nodes() const { return static_cast<int>(before_.size()) - 1; }
  int threads() const { return before_.back(); }
  int threads_of(int node) const { return before_[node + 1] - before_[node]; }
  int node_of(int thread) const;
  std::string text() const;  // "16 threads, 8 + 8 on the NUMA nodes"
  // Where the node's share of `count` things begins; the last one ends at begin(count, nodes()).
  int64_t begin(int64_t count, int node) const { return count * before_[node] / threads(); }

 private:
  std::vector<int> before_;  // [nodes + 1] threads of the nodes before
};

class Workers {
 public:
  explicit Workers(NodeShares shares) : shares_(std::move(shares)), threads_(shares_.threads()) {}
  // `nodes`: the NUMA nodes the threads are spread over evenly.
  explicit Workers(int threads, int nodes = 1) : Workers(NodeShares::even(threads, nodes)) {}
  int threads() const { return threads_; }
  const NodeShares& shares() const { return shares_; }
  int nodes() const { return shares_.nodes(); }
  int node_of(int thread) const { return shares_.node_of(thread); }

  // What the calling thread does after each of its pieces: to see to something that can't wait for
  // the end of a long loop. Must be quick and not use the workers.
  void set_between_pieces(std::function<void()> task) { between_pieces_ = std::move(task); }

  // Runs `body(thread)` once on every thread, each the one that has this number in all loops.
  void on_each_thread(const std::function<void(int)>& body) const;

  // Cuts [0, count) into pieces of at most `grain` and runs each once, on any thread
  // (0 <= thread < threads()). Returns when all are done. Each node's threads begin with the node's
  // share of the range, the first with the first, and then help the others.
  template <typename F>
  void for_range(int64_t count, int64_t grain, F&& body) const noexcept {
    std::remove_reference_t<F>& borrowed = body;
    run_ranges(count, grain, LoopBody(borrowed));
  }

  // The same for pieces of one, by body(piece, next, thread): `next` is what this thread takes
  // afterwards, which it can prepare for; -1 for none. A piece that is taken waits for its thread,
  // so the last ones should be short.
  template <typename F>
  void for_pieces(int64_t count, F&& body) const noexcept {
    std::remove_reference_t<F>& borrowed = body;
    run_pieces(count, LoopBody(borrowed));
  }

 private:
  void run_ranges(int64_t count, int64_t grain, LoopBody body) const noexcept;
  void run_pieces(int64_t count, LoopBody body) const noexcept;
  template <typename F>
  void on_team(int64_t pieces, F&& body) const noexcept;

  NodeShares shares_;
  int threads_;
  std::function<void()> between_pieces_;
};

}  // namespace hearth
