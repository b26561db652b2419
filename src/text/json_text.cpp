#include "text/json_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "base/error.h"

namespace hearth {
namespace {

using Json = nlohmann::ordered_json;

// Stands for a number beyond a double while the library parses, which refuses such numbers.
constexpr std::string_view kPlaceholder = "1.79769313486231570000000000000000e+308";
constexpr size_t kEscapeBytes = 6;  // \uXXXX

// The value of the \uXXXX escape at `position`; nothing where there is none.
std::optional<unsigned> unicode_escape(std::string_view text, size_t position) {
  const std::string_view escape = text.substr(std::min(position, text.size()), kEscapeBytes);
  if (escape.size() < kEscapeBytes || escape[0] != '\\' || escape[1] != 'u') return {};
  unsigned value = 0;
  const auto [end, error] = std::from_chars(escape.data() + 2, escape.data() + 6, value, 16);
  if (error != std::errc() || end != escape.data() + 6) return {};
  return value;
}

bool is_high_surrogate(unsigned value) { return value >= 0xD800 && value <= 0xDBFF; }
bool is_low_surrogate(unsigned value) { return value >= 0xDC00 && value <= 0xDFFF; }

bool is_json_number(std::string_view text) {
  size_t at = 0;
  const auto skip = [&](std::string_view any) {
    const bool found = at < text.size() && any.find(text[at]) != std::string_view::npos;
    if (found) ++at;
    return found;
  };
  const auto skip_digits = [&] {
    const size_t first = at;
    while (skip("0123456789")) continue;
    return at > first;
  };
  skip("-");
  if (!skip("0") && !skip_digits()) return false;
  if (skip(".") && !skip_digits()) return false;
  if (skip("eE")) {
    skip("+-");
    if (!skip_digits()) return false;
  }
  return at == text.size();
}

bool is_beyond_double(const std::string& number) {
  constexpr size_t kDigitsAlwaysFit = 300;
  if (number.size() < kDigitsAlwaysFit && number.find_first_of("eE") == std::string::npos)
    return false;
  return is_json_number(number) && std::isinf(std::strtod(number.c_str(), nullptr));
}

// Copies JSON text with the two things replaced that Python reads and the library refuses: lone
// surrogate escapes, and numbers beyond a double, which are noted in the order of the text.
class Mender {
 public:
  explicit Mender(std::string_view text) : text_(text) {}

  std::string mend() {
    bool in_string = false;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        in_string = !in_string;
        copy(1);
      } else if (in_string && c == '\\') {
        mend_escape();
      } else if (!in_string && (c == '-' || (c >= '0' && c <= '9'))) {
        mend_number();
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }
  std::vector<std::string> take_numbers() { return std::move(numbers_); }

 private:
  void copy(size_t bytes) {
    const std::string_view part = text_.substr(at_, bytes);
    out_ += part;
    at_ += part.size();
  }

  void mend_escape() {
    const std::optional<unsigned> first = unicode_escape(text_, at_);
    if (!first) {
      copy(2);
    } else if (is_high_surrogate(*first) &&
               is_low_surrogate(unicode_escape(text_, at_ + kEscapeBytes).value_or(0))) {
      copy(2 * kEscapeBytes);
    } else if (is_high_surrogate(*first) || is_low_surrogate(*first)) {
      out_ += "\\ufffd";
      at_ += kEscapeBytes;
    } else {
      copy(kEscapeBytes);
    }
  }

  void mend_number() {
    const size_t end = std::min(text_.find_first_not_of("+-.0123456789eE", at_), text_.size());
    std::string number(text_.substr(at_, end - at_));
    if (number == kPlaceholder || is_beyond_double(number)) {
      out_ += kPlaceholder;
      at_ = end;
      numbers_.push_back(std::move(number));
    } else {
      copy(number.size());
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string out_;
  std::vector<std::string> numbers_;
};

// Builds the value from the library's events. Objects keep an index of their members here, because
// those of the library search all members for each new one.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(std::vector<std::string> numbers) : numbers_(std::move(numbers)) {}

  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t, const string_t& text) override {
    // Only in text that turns out to be no JSON do the placeholders and the noted numbers differ in
    // count.
    const bool is_noted = text == kPlaceholder && numbers_taken_ < numbers_.size();
    const std::string& number = is_noted ? numbers_[numbers_taken_++] : text;
    if (number.find_first_of(".eE") != std::string::npos) {
      return put(std::strtod(number.c_str(), nullptr));
    }
    return put(Json::binary(Json::binary_t::container_type(number.begin(), number.end())));
  }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    auto& members = level.value->get_ref<Json::object_t&>();
    const auto [known, added] = level.positions.emplace(name, members.size());
    level.position = known->second;
    if (added) members.emplace_back(std::move(name), nullptr);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  struct Level {
    Json* value;  // an open object or array; nothing is added to the level above while it is open
    size_t position = 0;  // of the member whose value comes next
    std::unordered_map<std::string, size_t> positions = {};
  };

  Json* place(Json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *levels_.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    Json& member = members.data()[levels_.back().position].second;
    member = std::move(value);
    return &member;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (levels_.size() >= kJsonDepthMax) return false;
    Json* const opened = place(std::move(value));
    levels_.push_back(Level{opened});
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  std::vector<std::string> numbers_;  // what the placeholders stand for, in order
  size_t numbers_taken_ = 0;
  Json root_;
  std::vector<Level> levels_;
};

// The shortest digits that round-trip, laid out as Python does: always with a point or an exponent.
std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, std::abs(value), std::chars_format::scientific)
          .ptr;
  const std::string_view scientific(buffer, static_cast<size_t>(end - buffer));
  const size_t e = scientific.find('e');
  int exponent = 0;
  const size_t sign = scientific[e + 1] == '+' ? 2 : 1;
  std::from_chars(scientific.data() + e + sign, scientific.data() + scientific.size(), exponent);
  std::string digits(scientific.substr(0, e));
  std::erase(digits, '.');

  std::string out = std::signbit(value) ? "-" : "";
  constexpr int kFixedMin = -4, kFixedEnd = 16;  // exponents that are written out
  if (exponent < kFixedMin || exponent >= kFixedEnd) {
    out += digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    const std::string power = std::to_string(std::abs(exponent));
    return out + (exponent < 0 ? "e-" : "e+") + (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  return out + digits.substr(0, whole) + "." + (digits.size() > whole ? digits.substr(whole) : "0");
}

std::string string_text(const std::string& value) {
  return Json(value).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void write(const Json& value, int depth, std::string& out) {
  if (depth > kJsonDepthMax) throw Error("JSON nests too deep", "", "Flatten it");
  switch (value.type()) {
    case Json::value_t::object: {
      std::string_view separator = "{";
      for (const auto& member : value.items()) {
        out += separator;
        out += string_text(member.key()) + ": ";
        write(member.value(), depth + 1, out);
        separator = ", ";
      }
      out += value.empty() ? "{}" : "}";
      break;
    }
    case Json::value_t::array: {
      std::string_view separator = "[";
      for (const Json& element : value) {
        out += separator;
        write(element, depth + 1, out);
        separator = ", ";
      }
      out += value.empty() ? "[]" : "]";
      break;
    }
    case Json::value_t::string:
      out += string_text(value.get_ref<const std::string&>());
      break;
    case Json::value_t::number_float:
      out += number_text(value.get<double>());
      break;
    case Json::value_t::binary:
      out.append(value.get_binary().begin(), value.get_binary().end());
      break;
    default:
      out += value.dump();
  }
}

}  // namespace

std::optional<Json> parse_json(std::string_view text) {
  Mender mender(text);
  const std::string mended = mender.mend();
  Builder builder(mender.take_numbers());
  if (!Json::sax_parse(mended, &builder)) return {};
  return builder.take();
}

std::string prompt_json(const Json& value) {
  std::string out;
  write(value, 0, out);
  return out;
}

}  // namespace hearth
