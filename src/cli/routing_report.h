// How `trace` and `simulate` show what a routing trace says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "offload/sim/routing_stats.h"

namespace hearth::cli {

// Shares of the experts at which whole curves are drawn, and those that tables show.
std::vector<double> curve_shares();
// "12.5 %" of 0.125.
std::string format_share(double share);

nlohmann::ordered_json stats_json(const RoutingStats& stats);
// One line a layer. `shown` are shares of `stats.held`.
void print_stats(const RoutingStats& stats, const std::vector<double>& shown);
// The picture: hit rates, skew, both by layer, and working sets.
std::string stats_svg(const RoutingStats& stats, const std::string& title);

}  // namespace hearth::cli
