// The entries an indexer keeps.
#pragma once

#include <cstdint>
#include <span>

namespace hearth {

// The best.size() largest of scores[0, visible), more of them than that, as ascending indices.
// Scores past `visible` are those of entries still to come; they and those that don't compare are
// overwritten. order [scores.size()] is scratch.
//
// A tie at the cut falls as in the golden outputs, whose program ranks all of `scores` with entries
// still to come at minus infinity. With the 64 index heads of the released models no tie is to be
// expected: it takes entries that no head matches, which score exactly 0.
void keep_best(std::span<float> scores, int64_t visible, int32_t* order, std::span<int32_t> best);

}  // namespace hearth
