// The compute threads: fork-join loops over ranges. One loop runs at a time; the caller takes part.
#pragma once

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

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

class Workers {
 public:
  // `nodes`: the NUMA nodes the threads are spread over evenly, in order.
  explicit Workers(int threads, int nodes = 1) : threads_(threads), nodes_(nodes) {}
  int threads() const { return threads_; }
  int nodes() const { return nodes_; }
  int node_of(int thread) const { return thread * nodes_ / threads_; }

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

  int threads_;
  int nodes_;
  std::function<void()> between_pieces_;
};

// Where a node's share of `count` things in order begins: of pieces of work, of a matrix's rows.
inline int64_t node_share_begin(int64_t count, int node, int nodes) { return count * node / nodes; }

}  // namespace hearth
