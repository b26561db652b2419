// Well-formedness against a bit-by-bit definition; the stream at every cut.
#include "text/utf8.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "text/byte_map.h"

using namespace hearth;

namespace {

// All of it fed in parts of `step` bytes.
std::string streamed(const std::string& bytes, size_t step) {
  Utf8Stream stream;
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += step) out += stream.feed(bytes.substr(i, step));
  return out + stream.finish();
}

}  // namespace

TEST_CASE("every scalar value is well formed, and only scalar values are") {
  for (char32_t code_point = 0; code_point < 0x10FFFF; code_point += code_point < 0x3000 ? 1 : 97) {
    std::string text;
    append_utf8(code_point, text);
    const bool is_surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    CHECK_MESSAGE(utf8_length(text) == (is_surrogate ? 0 : text.size()), uint32_t{code_point});
    for (size_t cut = 0; cut < text.size(); ++cut) CHECK(utf8_length(text.substr(0, cut)) == 0);
  }
  for (const char* bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3(", "\xE4\xB8("}) {
    CHECK(utf8_length(bad) == 0);
  }
}

TEST_CASE("a stream hands on whole characters and mends what cannot become one") {
  Utf8Stream stream;
  CHECK(stream.feed("a\xE4\xB8") == "a");
  CHECK(stream.feed("\xAD\xF0\x9F") == "中");
  CHECK(stream.feed("\x99") == "");
  CHECK(stream.finish() == "\uFFFD");
  CHECK(stream.finish() == "");

  struct Case {
    std::string bytes;
    std::string text;
  };
  for (const auto& [bytes, text] : std::vector<Case>{{"plain", "plain"},
                                                     {"中🙂é", "中🙂é"},
                                                     {"\xFFx\xC3", "\uFFFDx\uFFFD"},
                                                     {"\xE4\xB8\xE4\xB8\xAD", "\uFFFD中"},
                                                     {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
                                                     {"\xF0\x9F\x99z", "\uFFFDz"}}) {
    for (size_t step = 1; step <= bytes.size(); ++step) CHECK(streamed(bytes, step) == text);
  }
}

TEST_CASE("the byte map is one to one") {
  CHECK(byte_stand_in(' ') == "Ġ");
  CHECK(byte_stand_in('\n') == "Ċ");
  CHECK(byte_stand_in('\r') == "č");
  CHECK(byte_stand_in('\t') == "ĉ");
  CHECK(byte_stand_in(173) == "\u0143");
  std::string all, mapped;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
    mapped += byte_stand_in(static_cast<unsigned char>(byte));
  }
  CHECK(unmap_bytes(mapped) == all);
  for (const char* foreign : {" ", "\u0144", "中", "a\u00ad", "\x80"}) CHECK(!unmap_bytes(foreign));
}
