#include "model/best_entries.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using namespace hearth;

namespace {

using Entries = std::vector<int32_t>;

Entries kept(std::vector<float> scores, int64_t visible, size_t top_k) {
  Entries order(scores.size()), best(top_k, -1);
  keep_best(scores, visible, order.data(), best);
  return best;
}

// By sorting; the lower index first among equals.
Entries sorted_best(const std::vector<float>& scores, int64_t visible, size_t top_k) {
  Entries order(visible);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(top_k);
  std::ranges::sort(order);
  return order;
}

}  // namespace

TEST_CASE("the best entries are those of a sort, in ascending order") {
  std::mt19937 random(3);
  for (const float scale : {1.0f, 1e-30f, 1e30f}) {
    for (const int64_t visible : {2, 9, 100, 3000}) {
      std::vector<float> scores(visible + 50, HUGE_VALF);  // of no entry yet: never kept
      std::normal_distribution<float> normal(0, scale);
      std::generate_n(scores.begin(), visible, [&] { return normal(random); });
      for (const int64_t top_k : {int64_t{1}, visible / 2, visible - 1}) {
        CAPTURE(visible);
        CAPTURE(top_k);
        CHECK(kept(scores, visible, top_k) == sorted_best(scores, visible, top_k));
      }
    }
  }
}

TEST_CASE("equal scores on one side of the cut are no tie") {
  const std::vector<float> scores = {1, 5, 5, 0, -0.0f, 3, 0};
  CHECK(kept(scores, 7, 2) == Entries{1, 2});
  CHECK(kept(scores, 7, 4) == Entries{0, 1, 2, 5});
}

TEST_CASE("a tie at the cut keeps the larger scores and as many of the equal ones as fit") {
  const std::vector<float> scores = {0, 5, -0.0f, 0, -2, 3, 0, 9, 9};
  for (const size_t top_k : {3, 4, 5}) {  // of seven that are visible
    const Entries best = kept(scores, 7, top_k);
    CHECK(std::ranges::is_sorted(best));
    CHECK(std::ranges::adjacent_find(best) == best.end());
    CHECK(std::ranges::count(best, 1) == 1);
    CHECK(std::ranges::count(best, 5) == 1);
    CHECK(std::ranges::count(best, 4) == 0);
    CHECK(best.back() < 7);
  }
  const std::vector<float> zeros = {5, 0, -0.0f, 0, 3}, same = {5, 0, 0, 0, 3};
  CHECK(kept(zeros, 5, 4) == kept(same, 5, 4));
}

TEST_CASE("scores that do not compare lose to all others, but to no entry still to come") {
  const float broken = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores = {broken, -1e38f, -HUGE_VALF, 2, HUGE_VALF, 7, 7};
  CHECK(kept(scores, 5, 3) == Entries{1, 3, 4});
  const Entries four = kept(scores, 5, 4);
  CHECK(four.back() == 4);
  CHECK((four[0] == 0 || four[1] == 2));
}
