#include "text/utf8.h"

namespace hearth {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What a lead byte promises: the length, and the range of the byte after it (which rules out
// overlong forms, surrogates and too large values). Length 0: not a lead byte.
struct Lead {
  size_t length;
  unsigned char low;
  unsigned char high;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

bool fits(const Lead& lead, size_t position, char byte) {
  const auto value = static_cast<unsigned char>(byte);
  return position == 1 ? value >= lead.low && value <= lead.high : (value & 0xC0) == 0x80;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.length > text.size()) return 0;
  for (size_t i = 1; i < lead.length; ++i) {
    if (!fits(lead, i, text[i])) return 0;
  }
  return lead.length;
}

void append_utf8(char32_t code_point, std::string& out) {
  const auto tail = [&](int shift) {
    out += static_cast<char>(0x80 | ((code_point >> shift) & 0x3F));
  };
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | (code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | (code_point >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | (code_point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string Utf8Stream::feed(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    if (!held_.empty()) {
      const Lead held_lead = lead_of(static_cast<unsigned char>(held_[0]));
      if (fits(held_lead, held_.size(), byte)) {
        held_ += byte;
        if (held_.size() == held_lead.length) {
          out += held_;
          held_.clear();
        }
        continue;
      }
      out += finish();
    }
    const size_t length = lead_of(static_cast<unsigned char>(byte)).length;
    if (length == 1) {
      out += byte;
    } else if (length == 0) {
      out += kReplacement;
    } else {
      held_ = byte;
    }
  }
  return out;
}

std::string Utf8Stream::finish() {
  if (held_.empty()) return {};
  held_.clear();
  return std::string(kReplacement);
}

}  // namespace hearth
