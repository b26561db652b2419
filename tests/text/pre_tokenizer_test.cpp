// The piece table of the specification and what follows from its patterns; long runs in about
// linear time.
#include "text/pre_tokenizer.h"

#include <doctest/doctest.h>

#include <ctime>
#include <string>
#include <string_view>
#include <vector>

using namespace hearth;

namespace {

const PreTokenizer& pre_tokenizer() {
  static const PreTokenizer instance;
  return instance;
}

std::vector<std::string> cut(const std::string& text) {
  std::vector<std::string_view> pieces;
  pre_tokenizer().cut(text, pieces);
  return {pieces.begin(), pieces.end()};
}

std::string repeat(const std::string& part, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += part;
  return out;
}

// Processor time: what other programs do meanwhile does not count.
double seconds_to_cut(const std::string& text) {
  const std::clock_t start = std::clock();
  std::string joined;
  for (const std::string& piece : cut(text)) joined += piece;
  CHECK((joined == text));
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

using Pieces = std::vector<std::string>;

}  // namespace

TEST_CASE("the piece table of the specification") {
  CHECK(cut("  5") == Pieces{"  ", "5"});
  CHECK(cut("   abc") == Pieces{"  ", " abc"});
  CHECK(cut("a  b") == Pieces{"a", " ", " b"});
  CHECK(cut("1234567") == Pieces{"123", "456", "7"});
  CHECK(cut("I don't") == Pieces{"I", " don", "'t"});
  CHECK(cut("don’t") == Pieces{"don", "’", "t"});
  CHECK(cut("foo();\n\nbar") == Pieces{"foo", "();\n\n", "bar"});
  CHECK(cut("!!!\n") == Pieces{"!!!\n"});
  CHECK(cut("hello\n\nworld\n") == Pieces{"hello", "\n\n", "world", "\n"});
  CHECK(cut("中文123中文") == Pieces{"中文", "123", "中文"});
  CHECK(cut("你好，世界") == Pieces{"你好", "，", "世界"});
  CHECK(cut("a\u200bb") == Pieces{"a", "\u200bb"});
  CHECK(cut("e\u0301") == Pieces{"e\u0301"});
}

TEST_CASE("each rule at its border") {
  CHECK(cut("").empty());
  CHECK(cut("１２３4") == Pieces{"１２３", "4"});  // digits of any script
  CHECK(cut("x.foo _a <b") == Pieces{"x", ".foo", " _", "a", " <", "b"});
  CHECK(cut("«quoted»…→") == Pieces{"«", "quoted", "»…→"});
  CHECK(cut("\tfoo\u00a0bar") == Pieces{"\tfoo", "\u00a0bar"});
  CHECK(cut("a\nb") == Pieces{"a", "\n", "b"});  // CR and LF never join a word
  CHECK(cut("a \n \n  b") == Pieces{"a", " \n \n", " ", " b"});
  CHECK(cut("a\r\n\r\n") == Pieces{"a", "\r\n\r\n"});
  CHECK(cut("end   ") == Pieces{"end", "   "});
  CHECK(cut("\u3000\u3000あ") ==
        Pieces{"\u3000\u3000", "あ"});  // white space beyond ASCII, cut by stage 2
  CHECK(cut("カタ・カナ") ==
        Pieces{"カタ", "・", "カナ"});  // stage 2 takes the dot, stage 3 parts it
  CHECK(cut("a \u180e\u180e b") ==
        Pieces{"a", " ", "\u180e\u180e", " b"});  // no white space since Unicode 6.3
  CHECK(cut("a\u200b\u200b b") == Pieces{"a", "\u200b\u200b", " b"});  // a gap is one piece
  CHECK(cut(std::string("\0\0a", 3)) == Pieces{std::string("\0", 1), std::string("\0a", 2)});
  CHECK(cut("\U00020000\U0001F600") == Pieces{"\U00020000", "\U0001F600"});
}

TEST_CASE("long runs are cut in about linear time") {
  constexpr size_t kShort = 20000, kFactor = 50;
  for (const std::string part : {" ", "a", "\n", " \n", "!", "1", "中", "e\u0301", "\u200b", " a",
                                 "a1", "'s", "\u00a0", "\r\n ", "\u180e ", "あ・"}) {
    CAPTURE(part);
    const double base = seconds_to_cut(repeat(part, kShort)) + 1e-3;
    // A quadratic step would cost kFactor times as much again.
    CHECK(seconds_to_cut(repeat(part, kShort * kFactor)) < base * kFactor * 8);
  }
  CHECK(cut(repeat(" ", 100000)).size() == 1);
  CHECK(cut(repeat("x", 100000)).size() == 1);
}
