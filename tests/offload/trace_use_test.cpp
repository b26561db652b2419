#include "offload/sim/trace_use.h"

#include <doctest/doctest.h>

using namespace hearth;

namespace {

RoutingTrace trace_of(std::vector<uint16_t> picks) {
  return {1, 2, 1, {static_cast<int64_t>(picks.size())}, std::move(picks)};
}

}  // namespace

TEST_CASE("hit rates of a recorded text: those of an LRU, and a fixed list on its other side") {
  // One of two experts is held. The list has the one used half of the time.
  const HitRate by_turns = recorded_use(trace_of({0, 1, 0, 1, 0, 1, 0, 1}), "a").hits.at(0.5);
  CHECK(by_turns.low == doctest::Approx(0));
  CHECK(by_turns.likely == doctest::Approx(0));
  CHECK(by_turns.high == doctest::Approx(0.5));
  // The LRU misses the first use of each.
  const RecordedUse one_by_one = recorded_use(trace_of({0, 0, 0, 0, 1, 1, 1, 1}), "b");
  CHECK(one_by_one.hits.at(0.5).low == doctest::Approx(0.5));
  CHECK(one_by_one.hits.at(0.5).likely == doctest::Approx(0.75));
  CHECK(one_by_one.hits.at(0.5).high == doctest::Approx(0.75));
  CHECK(one_by_one.picks == std::vector<int64_t>{4, 4});
  CHECK(one_by_one.tokens == 8);
}
