// A line chart inside an SVG picture: axes with ticks and labels, grid, curves, legend.
#pragma once

#include <string>
#include <vector>

#include "base/svg.h"

namespace hearth {

struct ChartAxis {
  std::string label = "";
  double min = 0;
  double max = 1;           // above min
  std::string suffix = "";  // behind the numbers of the ticks: " %"
};

struct ChartCurve {
  std::string name = "";              // in the legend; empty: not there
  std::vector<SvgPoint> points = {};  // in the axes' units, by ascending x
  std::string colour = "";            // empty: the next of the palette
  double width = 2;
  std::string dash = "";  // as of SvgShape
  bool dots = false;      // mark the points
};

struct Chart {
  std::string title = "";
  ChartAxis x, y;
  std::vector<ChartCurve> curves = {};
};

struct ChartBox {
  double x, y, width, height;
};
// Draws everything inside the box, the legend below the axes. Points outside the axes are moved to
// their edge.
void draw_chart(Svg& svg, const Chart& chart, const ChartBox& box);

// Round values in [min, max], about `wanted` of them: steps of 1, 2 or 5 times a power of ten.
std::vector<double> chart_ticks(double min, double max, int wanted);

}  // namespace hearth
