#include "cli/routing_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/chart.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;

Json row_json(const RoutingStats::Row& row) {
  return {{"static", row.fixed}, {"lru", row.lru}, {"working_set", row.working_set}};
}

size_t place_of(const RoutingStats& stats, double share) {
  return std::ranges::min_element(stats.held, {},
                                  [&](double held) { return std::abs(held - share); }) -
         stats.held.begin();
}

ChartAxis percent_axis(const char* label) { return {label, 0, 100, " %"}; }

std::vector<SvgPoint> percent_points(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<SvgPoint> points;
  for (size_t i = 0; i < x.size(); ++i) points.push_back({100 * x[i], 100 * y[i]});
  return points;
}

// A thin line a layer, all layers together on top.
Chart curves_chart(const RoutingStats& stats, const char* title, const char* y_label,
                   const char* colour, std::vector<double> RoutingStats::Row::*rates) {
  Chart chart = {title, percent_axis("experts held"), percent_axis(y_label)};
  for (size_t layer = 0; layer < stats.layers.size(); ++layer) {
    chart.curves.push_back({.name = layer == 0 ? "one layer" : "",
                            .points = percent_points(stats.held, stats.layers[layer].*rates),
                            .colour = "#c4c4c4",
                            .width = 1});
  }
  chart.curves.push_back({.name = "all layers together",
                          .points = percent_points(stats.held, stats.all.*rates),
                          .colour = colour,
                          .width = 2.5});
  return chart;
}

Chart layers_chart(const RoutingStats& stats) {
  Chart chart = {"A quarter of each layer's experts held",
                 {"layer", 0, std::max(1.0, static_cast<double>(stats.layers.size()) - 1)},
                 percent_axis("uses served")};
  const size_t at = place_of(stats, 0.25);
  ChartCurve fixed = {.name = "fixed list of the most used", .colour = "#d55e00", .dots = true};
  ChartCurve lru = {.name = "LRU", .colour = "#0072b2", .dots = true};
  for (size_t layer = 0; layer < stats.layers.size(); ++layer) {
    const auto x = static_cast<double>(layer);
    fixed.points.push_back({x, 100 * stats.layers[layer].fixed[at]});
    lru.points.push_back({x, 100 * stats.layers[layer].lru[at]});
  }
  chart.curves = {lru, fixed};
  return chart;
}

Chart working_set_chart(const RoutingStats& stats) {
  const auto longest = static_cast<double>(stats.windows.empty() ? 1 : stats.windows.back());
  Chart chart = {"Working set", {"tokens in a row", 0, longest}, {"experts of a layer", 0, 1}};
  for (size_t layer = 0; layer < stats.layers.size(); ++layer) {
    ChartCurve curve = {.name = layer == 0 ? "one layer" : "", .colour = "#8ab8d8", .width = 1};
    curve.points.push_back({0, 0});
    for (size_t w = 0; w < stats.windows.size(); ++w) {
      const double experts = stats.layers[layer].working_set[w];
      curve.points.push_back({static_cast<double>(stats.windows[w]), experts});
      chart.y.max = std::max(chart.y.max, experts * 1.05);
    }
    chart.curves.push_back(curve);
  }
  return chart;
}

void print_row(const std::string& name, const RoutingStats& stats, const RoutingStats::Row& row,
               const std::vector<double>& shown) {
  fmt::print("{:<5}", name);
  for (const auto* rates : {&row.fixed, &row.lru}) {
    fmt::print("  ");
    for (const double share : shown) {
      fmt::print(" {:>8}", format_share((*rates)[place_of(stats, share)]));
    }
  }
  fmt::print("  ");
  for (const double experts : row.working_set) fmt::print(" {:>7.1f}", experts);
  fmt::print("\n");
}

}  // namespace

std::vector<double> curve_shares() {
  std::vector<double> shares;
  for (int percent = 0; percent <= 100; ++percent) shares.push_back(percent / 100.0);
  return shares;
}

std::string format_share(double share) { return fmt::format("{:.1f} %", 100 * share); }

Json stats_json(const RoutingStats& stats) {
  Json layers = Json::array();
  for (const RoutingStats::Row& row : stats.layers) layers.push_back(row_json(row));
  return {{"held", stats.held},
          {"windows", stats.windows},
          {"all", row_json(stats.all)},
          {"per_layer", layers}};
}

void print_stats(const RoutingStats& stats, const std::vector<double>& shown) {
  const int width = 9 * static_cast<int>(shown.size());
  fmt::print(
      "Share of uses served, by share of the experts held, and distinct experts in some "
      "tokens\n\n");
  fmt::print("{:<5}   {:<{}}  {:<{}}   {}\n", "", "a fixed list of the most used", width, "LRU",
             width, "tokens in a row");
  fmt::print("{:<5}", "layer");
  for (int half = 0; half < 2; ++half) {
    fmt::print("  ");
    for (const double share : shown) fmt::print(" {:>8}", format_share(share));
  }
  fmt::print("  ");
  for (const int64_t window : stats.windows) fmt::print(" {:>7}", window);
  fmt::print("\n");
  for (size_t layer = 0; layer < stats.layers.size(); ++layer) {
    print_row(std::to_string(layer), stats, stats.layers[layer], shown);
  }
  print_row("all", stats, stats.all, shown);
}

std::string stats_svg(const RoutingStats& stats, const std::string& title) {
  constexpr double kWidth = 1120, kHeight = 900, kTop = 50;
  Svg svg(kWidth, kHeight, title);
  svg.text(kWidth / 2, 32, title, {.size = 19, .anchor = SvgAnchor::kMiddle, .bold = true});
  const Chart charts[] = {
      curves_chart(stats, "LRU cache", "uses served", "#0072b2", &RoutingStats::Row::lru),
      curves_chart(stats, "Fixed list of the most used experts", "uses served", "#d55e00",
                   &RoutingStats::Row::fixed),
      layers_chart(stats), working_set_chart(stats)};
  for (int i = 0; i < 4; ++i) {
    const double width = kWidth / 2, height = (kHeight - kTop) / 2;
    draw_chart(svg, charts[i], {width * (i % 2), kTop + height * (i / 2), width, height});
  }
  return svg.finish();
}

}  // namespace hearth::cli
