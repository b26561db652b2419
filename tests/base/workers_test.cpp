#include "base/workers.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

using namespace hearth;

TEST_CASE("every piece of a range runs once, whatever the threads, nodes and grain") {
  for (const int threads : {1, 2, 3, 8}) {
    for (const int nodes : {1, 2, 3}) {
      if (nodes > threads) continue;
      const Workers workers(threads, nodes);
      for (const int64_t count : {0, 1, 2, 7, 100}) {
        for (const int64_t grain : {0, 1, 3, 1000}) {
          std::vector<std::atomic<int>> runs(count);
          std::atomic<bool> in_range = true;
          workers.for_range(count, grain, [&](int64_t begin, int64_t end, int thread) {
            if (thread < 0 || thread >= threads || begin >= end) in_range = false;
            if (end - begin > std::max<int64_t>(grain, 1)) in_range = false;
            for (int64_t i = begin; i < end; ++i) ++runs[i];
          });
          CHECK(in_range);
          CHECK(std::ranges::all_of(runs, [](auto& n) { return n == 1; }));
        }
      }
    }
  }
}

TEST_CASE("every piece runs once, each after it was announced to the thread that runs it") {
  for (const int threads : {1, 2, 5}) {
    for (const int nodes : {1, 2}) {
      if (nodes > threads) continue;
      const Workers workers(threads, nodes);
      for (const int64_t count : {0, 1, 2, 7, 100}) {
        std::vector<std::atomic<int>> runs(count);
        std::vector<int64_t> announced(threads, -2);  // -2: nothing has run there yet
        std::atomic<bool> as_announced = true;
        workers.for_pieces(count, [&](int64_t piece, int64_t next, int thread) {
          if (announced[thread] != -2 && announced[thread] != piece) as_announced = false;
          announced[thread] = next;
          ++runs[piece];
        });
        CHECK(as_announced);
        CHECK(std::ranges::all_of(announced, [](int64_t next) { return next < 0; }));
        CHECK(std::ranges::all_of(runs, [](auto& n) { return n == 1; }));
      }
    }
  }
}

TEST_CASE("threads are spread over the nodes in order, a node's share over its range") {
  const Workers workers(8, 2);
  for (int thread = 0; thread < 8; ++thread) CHECK(workers.node_of(thread) == thread / 4);
  const NodeShares three = NodeShares::even(3, 3);
  CHECK(three.begin(10, 0) == 0);
  CHECK(three.begin(10, 1) == 3);
  CHECK(three.begin(10, 3) == 10);
}

TEST_CASE("a node's share is as large as its part of the threads, nothing where it has none") {
  const NodeShares shares({3, 0, 1});
  CHECK(shares.nodes() == 3);
  CHECK(shares.threads() == 4);
  CHECK(shares.threads_of(0) == 3);
  CHECK(shares.threads_of(1) == 0);
  for (const auto& [thread, node] : {std::pair(0, 0), {2, 0}, {3, 2}}) {
    CHECK(shares.node_of(thread) == node);
  }
  const int64_t begins[] = {0, 75, 75, 100};
  for (int node = 0; node <= 3; ++node) CHECK(shares.begin(100, node) == begins[node]);
  const Workers workers(shares);
  std::vector<std::atomic<int>> runs(100);
  workers.for_range(100, 1, [&](int64_t begin, int64_t, int) { ++runs[begin]; });
  CHECK(std::ranges::all_of(runs, [](auto& n) { return n == 1; }));
}

TEST_CASE("each thread runs once, under the number it has in loops") {
  const Workers workers(4);
  std::vector<std::atomic<int>> runs(4);
  workers.on_each_thread([&](int thread) { ++runs[thread]; });
  CHECK(std::ranges::all_of(runs, [](auto& n) { return n == 1; }));
}

TEST_CASE("between its pieces the calling thread sees to something else") {
  Workers workers(3);
  const auto caller = std::this_thread::get_id();
  int seen = 0, strangers = 0;
  workers.set_between_pieces([&] {
    strangers += std::this_thread::get_id() != caller;
    ++seen;
  });
  std::atomic<int> pieces = 0;
  workers.for_range(100, 1, [&](int64_t, int64_t, int thread) { pieces += thread == 0; });
  CHECK(seen == pieces);
  workers.for_range(5, 5, [&](int64_t, int64_t, int) {});
  CHECK(seen == pieces + 1);
  CHECK(strangers == 0);
}
