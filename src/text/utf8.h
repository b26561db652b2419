// UTF-8 at the borders: what is well formed, and a stream that only ever hands on whole characters.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hearth {

// Bytes of the well-formed character that `text` starts with (1 to 4); 0 where there is none.
// Overlong forms, surrogates and values above U+10FFFF are not well formed.
size_t utf8_length(std::string_view text);

// Appends the UTF-8 form of a Unicode scalar value.
void append_utf8(char32_t code_point, std::string& out);

// Takes bytes in any cut and returns text: the result does not depend on the cut. A character that
// is still incomplete is held back; every sequence that can no longer become one is replaced by
// U+FFFD.
class Utf8Stream {
 public:
  std::string feed(std::string_view bytes);
  // The end: what is still incomplete becomes U+FFFD.
  std::string finish();

 private:
  std::string held_;  // a proper prefix of a well-formed character
};

}  // namespace hearth
