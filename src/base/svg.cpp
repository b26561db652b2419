#include "base/svg.h"

#include <fmt/format.h>

#include <cstdint>

#include "base/check.h"

namespace hearth {
namespace {

// The bytes of the character that starts at `text`, 0 where it is no UTF-8 that XML may hold.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 || first == '\t' || first == '\n' ? 1 : 0;
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return 0;
  uint32_t code = first & (0x7f >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3f);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool allowed = code >= kLeast[bytes] && code <= 0x10ffff && code != 0xfffe &&
                       code != 0xffff && (code < 0xd800 || code > 0xdfff);
  return allowed ? bytes : 0;
}

// Two places after the point at most, without trailing zeros.
std::string number(double value) {
  std::string text = fmt::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string attribute(std::string_view name, double value) {
  return fmt::format(" {}=\"{}\"", name, number(value));
}
std::string attribute(std::string_view name, std::string_view value) {
  return fmt::format(" {}=\"{}\"", name, escape_xml(value));
}

}  // namespace

std::string escape_xml(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = character_bytes(text.substr(at));
    switch (bytes == 1 ? text[at] : '\0') {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += bytes == 0 ? "\xef\xbf\xbd" : text.substr(at, bytes);
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return result;
}

Svg::Svg(double width, double height, std::string_view title_text)
    : width_(width), height_(height) {
  title(title_text);
  rect(0, 0, width, height, {.fill = "#ffffff"});
}

void Svg::title(std::string_view text) {
  if (!text.empty()) body_ += fmt::format("<title>{}</title>\n", escape_xml(text));
}

void Svg::element(std::string_view name, const std::string& attributes, const SvgShape& shape) {
  body_ += fmt::format("<{}{}{}{}", name, attributes, attribute("fill", shape.fill),
                       attribute("stroke", shape.stroke));
  if (shape.stroke != "none") body_ += attribute("stroke-width", shape.stroke_width);
  if (!shape.dash.empty()) body_ += attribute("stroke-dasharray", shape.dash);
  if (shape.opacity != 1) body_ += attribute("opacity", shape.opacity);
  if (shape.tooltip.empty()) {
    body_ += "/>\n";
    return;
  }
  body_ += ">";
  title(shape.tooltip);
  body_ += fmt::format("</{}>\n", name);
}

void Svg::rect(double x, double y, double width, double height, const SvgShape& shape,
               double radius) {
  std::string place = attribute("x", x) + attribute("y", y) + attribute("width", width) +
                      attribute("height", height);
  if (radius > 0) place += attribute("rx", radius);
  element("rect", place, shape);
}

void Svg::line(SvgPoint from, SvgPoint to, const SvgShape& shape) {
  element("line",
          attribute("x1", from.x) + attribute("y1", from.y) + attribute("x2", to.x) +
              attribute("y2", to.y),
          shape);
}

void Svg::polyline(std::span<const SvgPoint> points, const SvgShape& shape) {
  std::string list;
  for (const SvgPoint& p : points) {
    list += fmt::format("{}{},{}", list.empty() ? "" : " ", number(p.x), number(p.y));
  }
  element("polyline", attribute("points", list) + attribute("stroke-linejoin", "round"), shape);
}

void Svg::circle(SvgPoint centre, double radius, const SvgShape& shape) {
  element("circle", attribute("cx", centre.x) + attribute("cy", centre.y) + attribute("r", radius),
          shape);
}

void Svg::text(double x, double y, std::string_view text, const SvgText& style) {
  constexpr const char* kAnchors[] = {"start", "middle", "end"};
  body_ += "<text" + attribute("x", x) + attribute("y", y) + attribute("font-size", style.size) +
           attribute("fill", style.fill) +
           attribute("text-anchor", kAnchors[static_cast<int>(style.anchor)]);
  if (style.bold) body_ += attribute("font-weight", "bold");
  if (style.rotate != 0) {
    body_ += attribute("transform",
                       fmt::format("rotate({} {} {})", number(style.rotate), number(x), number(y)));
  }
  body_ += fmt::format(">{}</text>\n", escape_xml(text));
}

void Svg::begin_group(double x, double y, std::string_view title_text) {
  body_ += fmt::format("<g transform=\"translate({} {})\">\n", number(x), number(y));
  title(title_text);
  ++open_groups_;
}

void Svg::end_group() {
  HEARTH_CHECK(open_groups_ > 0);
  --open_groups_;
  body_ += "</g>\n";
}

std::string Svg::finish() const {
  HEARTH_CHECK(open_groups_ == 0);
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\"{0}{1} viewBox=\"0 0 {2} {3}\" "
      "font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\">\n{4}</svg>\n",
      attribute("width", width_), attribute("height", height_), number(width_), number(height_),
      body_);
}

}  // namespace hearth
