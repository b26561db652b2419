#include "model/best_entries.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace hearth {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

// Integers in the order of the floats.
uint32_t rank_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000;
}

struct Cut {
  uint32_t rank;   // of the least score that is kept
  bool is_in_tie;  // whether scores like it are left out
};

// Finds the count-th largest score digit by digit, from the highest on.
Cut find_cut(std::span<const float> scores, int64_t count) {
  constexpr int kDigitBits = 8;
  constexpr uint32_t kDigit = (1 << kDigitBits) - 1;
  uint32_t rank = 0, known = 0;
  int64_t alike = 0;
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    std::array<int64_t, kDigit + 1> counts{};
    for (const float score : scores) {
      const uint32_t r = rank_of(score);
      if ((r & known) == rank) ++counts[r >> shift & kDigit];
    }
    uint32_t digit = kDigit;
    for (; counts[digit] < count; --digit) count -= counts[digit];
    rank |= digit << shift;
    known |= kDigit << shift;
    alike = counts[digit];
  }
  return {rank, alike > count};
}

void keep_in_tie(std::span<float> scores, int64_t visible, int32_t* order,
                 std::span<int32_t> best) {
  std::ranges::fill(scores.subspan(visible), -std::numeric_limits<float>::infinity());
  for (int32_t e = 0; e < std::ssize(scores); ++e) order[e] = e;
  std::nth_element(order, order + best.size() - 1, order + scores.size(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  std::copy_n(order, best.size(), best.begin());
  std::ranges::sort(best);
}

}  // namespace

void keep_best(std::span<float> scores, int64_t visible, int32_t* order, std::span<int32_t> best) {
  const std::span seen = scores.first(visible);
  // Broken weights can make scores that don't compare: they lose to all others, but to no entry
  // still to come. The sum turns minus zero into zero.
  for (float& score : seen) score = score >= kLowest ? score + 0.0f : kLowest;
  const Cut cut = find_cut(seen, std::ssize(best));
  if (cut.is_in_tie) return keep_in_tie(scores, visible, order, best);
  auto next = best.begin();
  for (int32_t e = 0; e < visible; ++e) {
    if (rank_of(seen[e]) >= cut.rank) *next++ = e;
  }
}

}  // namespace hearth
