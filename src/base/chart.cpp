#include "base/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace hearth {
namespace {

// Told apart by eyes that see fewer colours too, in print as well.
constexpr const char* kPalette[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#e69f00", "#56b4e9", "#555555"};
constexpr const char* kInk = "#222222";
constexpr const char* kGrid = "#e3e3e3";
constexpr double kLegendRow = 20, kLegendSample = 26;
// Of a 13 pixel letter; fonts differ, so it is on the wide side.
constexpr double kLetterWidth = 7.4;

class Drawing {
 public:
  Drawing(Svg& svg, const Chart& chart, const ChartBox& box) : svg_(svg), chart_(chart) {
    HEARTH_CHECK(chart.x.max > chart.x.min && chart.y.max > chart.y.min);
    place_legend(box);
    const double legend = kLegendRow * static_cast<double>(legend_rows_);
    plot_ = {box.x + 70, box.y + 36, box.width - 94, box.height - 36 - 52 - legend};
    legend_top_ = plot_.y + plot_.height + 62;
  }

  void draw() {
    svg_.text(plot_.x, plot_.y - 14, chart_.title, {.size = 15, .bold = true});
    draw_axes();
    draw_curves();
    draw_legend();
  }

 private:
  struct Entry {
    size_t curve;
    double x;
    size_t row;
  };

  std::string colour(size_t curve) const {
    const std::string& own = chart_.curves[curve].colour;
    return own.empty() ? kPalette[curve % std::size(kPalette)] : own;
  }

  // Entries in rows, as many in each as fit.
  void place_legend(const ChartBox& box) {
    double x = 0;
    for (size_t i = 0; i < chart_.curves.size(); ++i) {
      const std::string& name = chart_.curves[i].name;
      if (name.empty()) continue;
      const double width = kLegendSample + 8 + kLetterWidth * static_cast<double>(name.size()) + 18;
      if (legend_rows_ == 0) legend_rows_ = 1;
      if (x > 0 && x + width > box.width - 94) {
        x = 0;
        ++legend_rows_;
      }
      legend_.push_back({i, x, legend_rows_ - 1});
      x += width;
    }
  }

  double at_x(double x) const {
    const double share = (x - chart_.x.min) / (chart_.x.max - chart_.x.min);
    return plot_.x + plot_.width * std::clamp(share, 0.0, 1.0);
  }
  double at_y(double y) const {
    const double share = (y - chart_.y.min) / (chart_.y.max - chart_.y.min);
    return plot_.y + plot_.height * (1 - std::clamp(share, 0.0, 1.0));
  }

  void draw_axes() {
    const double left = plot_.x, right = plot_.x + plot_.width;
    const double top = plot_.y, bottom = plot_.y + plot_.height;
    const auto label = [](double value, const ChartAxis& axis) {
      return fmt::format("{}{}", std::abs(value) < 1e-12 ? 0 : value, axis.suffix);
    };
    for (const double x :
         chart_ticks(chart_.x.min, chart_.x.max, std::max(2, static_cast<int>(plot_.width / 70)))) {
      svg_.line({at_x(x), top}, {at_x(x), bottom}, {.stroke = kGrid});
      svg_.line({at_x(x), bottom}, {at_x(x), bottom + 5}, {.stroke = kInk});
      svg_.text(at_x(x), bottom + 20, label(x, chart_.x),
                {.size = 12, .anchor = SvgAnchor::kMiddle});
    }
    for (const double y : chart_ticks(chart_.y.min, chart_.y.max,
                                      std::max(2, static_cast<int>(plot_.height / 45)))) {
      svg_.line({left, at_y(y)}, {right, at_y(y)}, {.stroke = kGrid});
      svg_.line({left - 5, at_y(y)}, {left, at_y(y)}, {.stroke = kInk});
      svg_.text(left - 9, at_y(y) + 4, label(y, chart_.y), {.size = 12, .anchor = SvgAnchor::kEnd});
    }
    svg_.line({left, bottom}, {right, bottom}, {.stroke = kInk});
    svg_.line({left, top}, {left, bottom}, {.stroke = kInk});
    svg_.text((left + right) / 2, bottom + 42, chart_.x.label, {.anchor = SvgAnchor::kMiddle});
    const double middle = (top + bottom) / 2;
    svg_.text(left - 52, middle, chart_.y.label, {.anchor = SvgAnchor::kMiddle, .rotate = -90});
  }

  void draw_curves() {
    for (size_t i = 0; i < chart_.curves.size(); ++i) {
      const ChartCurve& curve = chart_.curves[i];
      std::vector<SvgPoint> points;
      for (const SvgPoint& p : curve.points) points.push_back({at_x(p.x), at_y(p.y)});
      svg_.polyline(points, {.stroke = colour(i),
                             .stroke_width = curve.width,
                             .dash = curve.dash,
                             .tooltip = curve.name});
      if (!curve.dots) continue;
      for (const SvgPoint& p : points) svg_.circle(p, curve.width + 1, {.fill = colour(i)});
    }
  }

  void draw_legend() {
    for (const Entry& entry : legend_) {
      const ChartCurve& curve = chart_.curves[entry.curve];
      const double x = plot_.x + entry.x;
      const double y = legend_top_ + kLegendRow * static_cast<double>(entry.row);
      svg_.line({x, y - 4}, {x + kLegendSample, y - 4},
                {.stroke = colour(entry.curve), .stroke_width = curve.width, .dash = curve.dash});
      svg_.text(x + kLegendSample + 8, y, curve.name);
    }
  }

  Svg& svg_;
  const Chart& chart_;
  std::vector<Entry> legend_;
  size_t legend_rows_ = 0;
  double legend_top_ = 0;
  ChartBox plot_{};  // inside the axes
};

}  // namespace

std::vector<double> chart_ticks(double min, double max, int wanted) {
  HEARTH_CHECK(max > min && wanted > 0);
  const double rough = (max - min) / wanted;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double step = power * (rough <= power       ? 1
                               : rough <= 2 * power ? 2
                               : rough <= 5 * power ? 5
                                                    : 10);
  std::vector<double> ticks;
  const double slack = step * 1e-9;  // what rounding does to the ends
  for (double n = std::ceil((min - slack) / step); n * step <= max + slack; ++n) {
    // Decimal steps aren't exact in binary; the label shall not show that.
    ticks.push_back(std::round(n * step / power) * power);
  }
  return ticks;
}

void draw_chart(Svg& svg, const Chart& chart, const ChartBox& box) {
  Drawing(svg, chart, box).draw();
}

}  // namespace hearth
