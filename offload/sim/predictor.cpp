#include "offload/sim/predictor.h"

#include <algorithm>

namespace hearth {

void Predictor::guess(int32_t first, std::span<const int32_t> keys, std::vector<int32_t>& guesses) {
  guesses.clear();
  const bool can_be_wrong = std::ssize(keys) < experts_;
  for (const int32_t key : keys) {
    const bool right = random_.uniform() < precision_;
    auto other = static_cast<int32_t>(random_.below(experts_));
    if (right) {
      guesses.push_back(key);
    } else if (can_be_wrong) {
      while (std::ranges::find(keys, first + other) != keys.end()) other = (other + 1) % experts_;
      guesses.push_back(first + other);
    }
  }
}

}  // namespace hearth
