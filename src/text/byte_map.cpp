#include "text/byte_map.h"

#include <array>

#include "text/utf8.h"

namespace hearth {
namespace {

constexpr int kFirstExtra =
    0x100;  // stands for the lowest byte that has no printable form of its own
constexpr int kExtras = 68;

constexpr bool is_printable(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<unsigned char, kExtras> make_extras() {
  std::array<unsigned char, kExtras> extras{};
  size_t count = 0;
  for (int byte = 0; byte < 256; ++byte) {
    if (!is_printable(byte)) extras[count++] = static_cast<unsigned char>(byte);
  }
  return extras;
}

constexpr std::array<unsigned char, kExtras> kExtraBytes = make_extras();

// The byte a code point stands for, or -1.
int byte_of(int code_point) {
  if (code_point < 256) return is_printable(code_point) ? code_point : -1;
  const int extra = code_point - kFirstExtra;
  return extra < kExtras ? kExtraBytes[static_cast<size_t>(extra)] : -1;
}

}  // namespace

std::string byte_stand_in(unsigned char byte) {
  int code_point = byte;
  if (!is_printable(byte)) {
    code_point = kFirstExtra;
    while (kExtraBytes[static_cast<size_t>(code_point - kFirstExtra)] != byte) ++code_point;
  }
  std::string out;
  append_utf8(static_cast<char32_t>(code_point), out);
  return out;
}

std::optional<std::string> unmap_bytes(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const size_t length = utf8_length(token);
    if (length == 0 || length > 2) return {};  // stand-ins end at U+0143
    int code_point = static_cast<unsigned char>(token[0]);
    if (length == 2) {
      code_point = (code_point & 0x1F) << 6 | (static_cast<unsigned char>(token[1]) & 0x3F);
    }
    const int byte = byte_of(code_point);
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    token.remove_prefix(length);
  }
  return bytes;
}

}  // namespace hearth
