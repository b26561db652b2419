#include "offload/sim/trace_use.h"

#include <algorithm>

#include "base/error.h"
#include "offload/sim/cache_curves.h"

namespace hearth {
namespace {

HitCurve recorded_hits(const Accesses& accesses, const std::vector<int64_t>& picks) {
  const HitCounts lru = lru_curve(accesses), fixed = static_curve(accesses, picks);
  std::vector<HitPoint> points;
  for (const double held : {0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}) {
    const auto slots = static_cast<size_t>(slots_of_share(accesses, held));
    const double likely = hit_rate(accesses, lru[slots]);
    const double list = hit_rate(accesses, fixed[slots]);
    points.push_back({held, {std::min(likely, list), likely, std::max(likely, list)}});
  }
  return HitCurve(std::move(points));
}

}  // namespace

RecordedUse recorded_use(const RoutingTrace& trace, const std::string& source) {
  if (trace.tokens() == 0) throw Error("holds no tokens", source, "Record a longer text");
  const Accesses accesses = accesses_of(trace);
  std::vector<int64_t> picks = count_uses(accesses);
  HitCurve hits = recorded_hits(accesses, picks);
  return {source,
          {trace.layers, trace.experts, trace.used},
          trace.tokens(),
          std::move(picks),
          std::move(hits)};
}

}  // namespace hearth
