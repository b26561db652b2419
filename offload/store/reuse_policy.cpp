// The program's own policy. In points above LRU at 4.6, 12, 25 and 50 % of the experts held:
// drawn traces of V4-Flash that change their subject 5.4, 2.0, 1.1, 0.3 and of V4.1-Flash 6.8, 2.6,
// 1.3, 0.8; the demo model on its text 6.5, 0.2, 4.8, 4.1. More weight on the long memory gains
// more inside a subject and falls behind LRU after it changes.
//
// How likely a key is used at the next visit of its layer is estimated from its uses at the visits
// so far, each weighing the less the longer ago it is: four exponential means with half-lives of
// half a visit to 512 visits. The short ones are what LRU knows, the long ones what LFU knows. From
// the chance follows how many visits pass until it is used on average; and as the layers take
// turns, it is known how many layers pass until the next visit: a key of the layer just done waits
// a whole turn longer than one of the layer that comes next, which LRU gives up first.
//
// Chances of a layer's keys change only when the layer is visited. So each layer keeps its least
// likely key, and a victim is found among one a layer.
#include <algorithm>
#include <bit>
#include <limits>

#include "offload/store/cache_policy.h"
#include "offload/store/use_chances.h"

namespace hearth {
namespace {

// Half-lives of 0.5, 5, 64 and 512 visits.
constexpr UseMean kMeans[] = {
    {0.25f, 0.2f}, {0.870551f, 0.6f}, {0.989228f, 0.12f}, {0.998647f, 0.08f}};

class ReusePolicy : public CachePolicy {
 public:
  explicit ReusePolicy(CacheShape shape)
      : shape_(shape),
        chances_(shape, kMeans),
        held_back_(shape.pairs(), kHeldBack),
        least_(shape.layers) {}

  void begin_step(int32_t layer) override {
    now_ = layer;
    chances_.begin_visit(layer);
    least_[layer].known = false;
  }
  void touch(int32_t key) override {
    chances_.use(key);
    least_[key / shape_.experts].known = false;
  }
  void add(int32_t key) override {
    held_back_[key] = 0;
    least_[key / shape_.experts].known = false;
  }
  void remove(int32_t key) override {
    held_back_[key] = kHeldBack;
    Least& least = least_[key / shape_.experts];
    if (least.key == key) least.known = false;
  }
  int32_t victim() override {
    float longest = -1;
    int32_t found = -1;
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      if (!least_[layer].known) find_least(layer);
      const Least& least = least_[layer];
      if (least.key < 0) continue;
      const int32_t turn = layer > now_ ? layer - now_ : layer - now_ + shape_.layers;
      const float wait =
          least.visits * static_cast<float>(shape_.layers) + static_cast<float>(turn);
      if (wait <= longest) continue;
      longest = wait;
      found = least.key;
    }
    if (found >= 0) remove(found);
    return found;
  }

 private:
  struct Least {
    int32_t key = -1;  // -1: none may leave
    float visits = 0;  // expected to pass without its use
    bool known = false;
  };

  // Not negative, floats are ordered as their bits are; integers the compiler compares in groups.
  int32_t rank(int32_t key) const {
    return std::bit_cast<int32_t>(chances_[key]) | held_back_[key];
  }

  void find_least(int32_t layer) {
    const int32_t first = layer * shape_.experts, end = first + shape_.experts;
    int32_t lowest = kHeldBack;
    for (int32_t key = first; key < end; ++key) lowest = std::min(lowest, rank(key));
    least_[layer] = {-1, 0, true};
    if (lowest == kHeldBack) return;
    int32_t found = first;
    while (rank(found) != lowest) ++found;
    least_[layer].key = found;
    least_[layer].visits = 1 / std::min(chances_[found], 1.0f) - 1;
  }

  // Above the bits of every number.
  static constexpr int32_t kHeldBack = std::numeric_limits<int32_t>::max();

  const CacheShape shape_;
  int32_t now_ = 0;                 // the layer of the step
  UseChances chances_;              // of a use at the next visit
  std::vector<int32_t> held_back_;  // [pairs] kHeldBack, or 0 for those that may leave
  std::vector<Least> least_;        // [layers]
};

}  // namespace

std::unique_ptr<CachePolicy> make_reuse_policy(CacheShape shape) {
  return std::make_unique<ReusePolicy>(shape);
}

}  // namespace hearth
