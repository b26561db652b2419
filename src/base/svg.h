// Writes a picture as SVG: shapes, text and groups, one after another, later ones on top. Lengths
// are pixels, x to the right, y down. Colours are CSS ("#1f77b4", "none").
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace hearth {

struct SvgPoint {
  double x, y;
};

struct SvgShape {
  std::string fill = "none";
  std::string stroke = "none";
  double stroke_width = 1;
  std::string dash = "";  // "6 4": drawn and left out in turns; empty: solid
  double opacity = 1;
  std::string tooltip = "";  // shown where the pointer rests on the shape; empty: none
};

enum class SvgAnchor { kStart, kMiddle, kEnd };  // which part of a text stands at its place

struct SvgText {
  double size = 13;
  SvgAnchor anchor = SvgAnchor::kStart;
  std::string fill = "#222222";
  bool bold = false;
  double rotate = 0;  // degrees, clockwise, around the text's place
};

class Svg {
 public:
  // A white picture. The title is not drawn; programs that read or show the file tell it.
  Svg(double width, double height, std::string_view title);

  double width() const { return width_; }
  double height() const { return height_; }

  void rect(double x, double y, double width, double height, const SvgShape& shape,
            double radius = 0);
  void line(SvgPoint from, SvgPoint to, const SvgShape& shape);
  void polyline(std::span<const SvgPoint> points, const SvgShape& shape);
  void circle(SvgPoint centre, double radius, const SvgShape& shape);
  // `y` is the base line. Any bytes may be in `text`; what is not UTF-8 shows as a replacement
  // mark.
  void text(double x, double y, std::string_view text, const SvgText& style = {});

  // Everything until the matching end_group() is moved by (x, y); the title is shown as for shapes.
  void begin_group(double x, double y, std::string_view title = "");
  void end_group();

  // The whole file; every group must be closed.
  std::string finish() const;

 private:
  void element(std::string_view name, const std::string& attributes, const SvgShape& shape);
  void title(std::string_view text);

  double width_, height_;
  int open_groups_ = 0;
  std::string body_;
};

// Text for an XML file: markup characters escaped, bytes that XML can't hold replaced by U+FFFD.
std::string escape_xml(std::string_view text);

}  // namespace hearth
