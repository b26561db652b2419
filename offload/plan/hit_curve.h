// How many picks of experts a cache serves that holds a share of them all.
#pragma once

#include <vector>

namespace hearth {

// Shares of the picks, 0 to 1, low <= likely <= high.
struct HitRate {
  double low = 0;
  double likely = 0;
  double high = 0;
};

struct HitPoint {
  double held;  // share of all (layer, expert) pairs
  HitRate rate;
};

class HitCurve {
 public:
  // What is known of real text: `low` is what the most frequent experts of a mixed text serve when
  // they are held for good, `likely` what engines report of caches that follow the text (least
  // recently used), `high` as much above that as such caches differ among texts.
  static HitCurve of_real_text();
  // Every expert picked equally often, at random: a cache serves what it holds.
  static HitCurve of_random_picks();
  // Points by ascending `held`; (0, 0) and (1, 1) are added.
  explicit HitCurve(std::vector<HitPoint> points);

  // Linear between the points. `held` outside 0 to 1 counts as the nearer end.
  HitRate at(double held) const;

 private:
  std::vector<HitPoint> points_;
};

}  // namespace hearth
