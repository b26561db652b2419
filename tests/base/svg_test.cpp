#include "base/svg.h"

#include <doctest/doctest.h>

#include "base/chart.h"

using namespace hearth;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("text for XML: markup escaped, what XML can't hold replaced") {
  CHECK(escape_xml("a < b & \"c\" > 'd'") == "a &lt; b &amp; &quot;c&quot; &gt; &#39;d&#39;");
  CHECK(escape_xml("tab\tand\nline") == "tab\tand\nline");
  CHECK(escape_xml("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x94\xa5") ==
        "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x94\xa5");
  const std::string mark = "\xef\xbf\xbd";
  for (const std::string& bad :
       {std::string("\x01"), std::string(1, '\0'), std::string("\x80"), std::string("\xff")}) {
    CHECK(escape_xml("a" + bad + "b") == "a" + mark + "b");
  }
  CHECK(escape_xml("\xc3") == mark);                                   // cut off
  CHECK(escape_xml("\xc0\xaf") == mark + mark);                        // longer than needed
  CHECK(escape_xml("\xe0\x80\xaf") == mark + mark + mark);             // so is this
  CHECK(escape_xml("\xed\xa0\x80") == mark + mark + mark);             // half of a pair
  CHECK(escape_xml("\xef\xbf\xbf") == mark + mark + mark);             // no character
  CHECK(escape_xml("\xf5\x80\x80\x80") == mark + mark + mark + mark);  // beyond Unicode
}

TEST_CASE("a picture holds its shapes in order, with a title and groups") {
  Svg svg(200, 100.5, "a <picture>");
  svg.rect(1, 2.25, 30, 4, {.fill = "#ff0000", .tooltip = "one & only"}, 3);
  svg.begin_group(10, -5, "group");
  svg.line({0, 0}, {1.0 / 3, 1e-9}, {.stroke = "#000000", .stroke_width = 2, .dash = "6 4"});
  svg.text(5, 6, "x<y", {.size = 11, .anchor = SvgAnchor::kEnd, .bold = true, .rotate = -90});
  svg.end_group();
  const SvgPoint points[] = {{0, 0}, {1, 2}, {3, -0.001}};
  svg.polyline(points, {.stroke = "blue", .opacity = 0.5});
  svg.circle({7, 8}, 2, {});
  const char* expected[] = {
      R"svg(<?xml version="1.0" encoding="UTF-8"?>)svg",
      R"svg(<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100.5" viewBox="0 0 200 100.5")svg"
      R"svg( font-family="system-ui, 'DejaVu Sans', Arial, sans-serif">)svg",
      R"svg(<title>a &lt;picture&gt;</title>)svg",
      R"svg(<rect x="0" y="0" width="200" height="100.5" fill="#ffffff" stroke="none"/>)svg",
      R"svg(<rect x="1" y="2.25" width="30" height="4" rx="3" fill="#ff0000" stroke="none">)svg"
      R"svg(<title>one &amp; only</title>)svg",
      R"svg(</rect>)svg",
      R"svg(<g transform="translate(10 -5)">)svg",
      R"svg(<title>group</title>)svg",
      R"svg(<line x1="0" y1="0" x2="0.33" y2="0" fill="none" stroke="#000000" stroke-width="2")svg"
      R"svg( stroke-dasharray="6 4"/>)svg",
      R"svg(<text x="5" y="6" font-size="11" fill="#222222" text-anchor="end" font-weight="bold")svg"
      R"svg( transform="rotate(-90 5 6)">x&lt;y</text>)svg",
      R"svg(</g>)svg",
      R"svg(<polyline points="0,0 1,2 3,0" stroke-linejoin="round" fill="none" stroke="blue")svg"
      R"svg( stroke-width="1" opacity="0.5"/>)svg",
      R"svg(<circle cx="7" cy="8" r="2" fill="none" stroke="none"/>)svg",
      R"svg(</svg>)svg"};
  std::string whole;
  for (const char* line : expected) whole += std::string(line) + "\n";
  CHECK(svg.finish() == whole);
}

TEST_CASE("ticks are round numbers inside the axis") {
  using Ticks = std::vector<double>;
  CHECK(chart_ticks(0, 100, 5) == Ticks{0, 20, 40, 60, 80, 100});
  CHECK(chart_ticks(0, 100, 10).size() == 11);
  CHECK(chart_ticks(3, 17, 4) == Ticks{5, 10, 15});
  CHECK(chart_ticks(-1, 1, 4) == Ticks{-1, -0.5, 0, 0.5, 1});
  const Ticks small = chart_ticks(0, 0.3, 3);
  REQUIRE(small.size() == 4);
  CHECK(small[3] == doctest::Approx(0.3));
}

TEST_CASE("a chart draws axes, labels, curves and a legend inside its box") {
  Chart chart = {"A title", {"along", 0, 10, " s"}, {"up", 0, 1, ""}, {}};
  chart.curves.push_back({.name = "first", .points = {{0, 0}, {5, 0.5}, {10, 1}}, .dots = true});
  chart.curves.push_back({.name = "", .points = {{0, 5}, {20, -5}}, .colour = "#123456"});
  Svg svg(400, 300, "");
  draw_chart(svg, chart, {0, 0, 400, 300});
  const std::string file = svg.finish();
  for (const char* text : {">A title<", ">along<", ">up<", ">10 s<", ">0.5<", ">first<"}) {
    CAPTURE(text);
    CHECK(contains(file, text));
  }
  CHECK(count(file, "<polyline") == 2);
  CHECK(count(file, "<circle") == 3);
  // Beyond the axes: from the upper left corner to the lower right one.
  CHECK(contains(file, "points=\"70,36 376,228\""));
  // A legend too wide for one line takes more.
  for (int i = 0; i < 6; ++i) {
    chart.curves.push_back({.name = "a curve with a long name", .points = {{0, 0}, {1, 1}}});
  }
  Svg wide(400, 400, "");
  draw_chart(wide, chart, {0, 0, 400, 400});
  CHECK(count(wide.finish(), ">a curve with a long name</text>") == 6);
}
