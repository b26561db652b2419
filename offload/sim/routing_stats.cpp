#include "offload/sim/routing_stats.h"

#include "offload/sim/cache_curves.h"

namespace hearth {
namespace {

std::vector<double> rates_of(const Accesses& accesses, const HitCounts& curve,
                             const std::vector<double>& held) {
  std::vector<double> rates;
  for (const double share : held) {
    rates.push_back(hit_rate(accesses, curve[slots_of_share(accesses, share)]));
  }
  return rates;
}

RoutingStats::Row row_of(const Accesses& accesses, const RoutingStats& stats) {
  RoutingStats::Row row;
  row.fixed = rates_of(accesses, static_curve(accesses, count_uses(accesses)), stats.held);
  row.lru = rates_of(accesses, lru_curve(accesses), stats.held);
  for (const int64_t window : stats.windows) {
    row.working_set.push_back(mean_working_set(accesses, window));
  }
  return row;
}

}  // namespace

RoutingStats routing_stats(const Accesses& accesses, const std::vector<double>& held,
                           const std::vector<int64_t>& windows) {
  RoutingStats stats;
  stats.held = held;
  const int64_t tokens = accesses.steps() / accesses.layers;
  for (const int64_t window : windows) {
    if (window <= tokens) stats.windows.push_back(window);
  }
  stats.all = row_of(accesses, stats);
  for (int32_t layer = 0; layer < accesses.layers; ++layer) {
    stats.layers.push_back(row_of(only_layer(accesses, layer), stats));
  }
  return stats;
}

}  // namespace hearth
