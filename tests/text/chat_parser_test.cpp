// Parsing what a model writes, with the stream cut in every way: as the model's tokens and as
// single bytes.
#include "text/chat_parser.h"

#include <doctest/doctest.h>

#include "small_vocabulary.h"

using namespace hearth;

namespace {

const Tokenizer& small() {
  static const Tokenizer instance(test::small_vocabulary().dir(), "small");
  return instance;
}
const ChatTokens& tokens() {
  static const ChatTokens instance = find_chat_tokens(small()).tokens.value();
  return instance;
}

struct Parsed {
  std::string reasoning;
  std::string content;
  bool has_ended = false;
  std::string stop;

  bool operator==(const Parsed&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Parsed& parsed) {
  return out << '{' << parsed.reasoning << '|' << parsed.content << '|' << parsed.has_ended << '|'
             << parsed.stop << '}';
}

Parsed parse_ids(const std::vector<int32_t>& ids, bool in_reasoning,
                 const std::vector<std::string>& stops) {
  ChatParser parser(small(), tokens(), in_reasoning, stops);
  Parsed out;
  const auto take = [&](const ChatDelta& delta) {
    out.reasoning += delta.reasoning;
    out.content += delta.content;
    // Every delta is whole characters.
    for (const std::string& text : {delta.reasoning, delta.content}) {
      Utf8Stream stream;
      CHECK(stream.feed(text) == text);
    }
  };
  for (const int32_t id : ids) take(parser.feed(id));
  take(parser.finish());
  take(parser.finish());
  out.has_ended = parser.has_ended();
  if (parser.stop_string()) out.stop = *parser.stop_string();
  return out;
}

// Merged tokens taken apart into the tokens of their bytes.
std::vector<int32_t> taken_apart(const std::vector<int32_t>& ids) {
  std::vector<int32_t> out;
  for (const int32_t id : ids) {
    if (small().is_special(id)) {
      out.push_back(id);
    } else {
      for (const char byte : small().token_bytes(id))
        out.push_back(static_cast<unsigned char>(byte));
    }
  }
  return out;
}

// `text` with the delimiters as control tokens.
Parsed parse(const std::string& text, bool in_reasoning,
             const std::vector<std::string>& stops = {}) {
  const std::vector<int32_t> ids = small().encode(text, Specials::kMatch);
  const Parsed parsed = parse_ids(ids, in_reasoning, stops);
  CHECK(parse_ids(taken_apart(ids), in_reasoning, stops) == parsed);
  return parsed;
}

constexpr bool kReasoning = true, kContent = false;
const std::string kEos = "<｜end▁of▁sentence｜>";

}  // namespace

TEST_CASE("reasoning, then content; nothing is trimmed") {
  CHECK(parse("Simple.</think>4" + kEos, kReasoning) == Parsed{"Simple.", "4", true, ""});
  CHECK(parse("</think>Hi." + kEos, kReasoning) == Parsed{"", "Hi.", true, ""});
  CHECK(parse("\na\n\n</think>\n\nb\n" + kEos, kReasoning) ==
        Parsed{"\na\n\n", "\n\nb\n", true, ""});
  CHECK(parse("</think>  " + kEos, kReasoning) == Parsed{"", "  ", true, ""});
  CHECK(parse("never closed" + kEos, kReasoning) == Parsed{"never closed", "", true, ""});
  CHECK(parse("cut", kReasoning) == Parsed{"cut", "", false, ""});
  CHECK(parse("cut ", kContent) == Parsed{"", "cut ", false, ""});
  CHECK(parse("", kContent) == Parsed{});
}

TEST_CASE("delimiters in unexpected places") {
  CHECK(parse("<think>Hm.</think>ok" + kEos, kReasoning) == Parsed{"Hm.", "ok", true, ""});
  CHECK(parse("a<think>b</think>ok", kReasoning) == Parsed{"ab", "ok", false, ""});
  CHECK(parse("</think>Hello", kContent) == Parsed{"", "Hello", false, ""});
  CHECK(parse("<think>Hm.</think>ok", kContent) == Parsed{"Hm.", "ok", false, ""});
  CHECK(parse("\n <think>Hm.</think>\nok", kContent) == Parsed{"Hm.", "\nok", false, ""});
  CHECK(parse("a<think>b</think>c", kContent) == Parsed{"", "abc", false, ""});
  CHECK(parse("x</think> <think>y</think>z", kReasoning) == Parsed{"xy", "z", false, ""});
}

TEST_CASE("what ends the turn, what is dropped, what is text") {
  for (const char* end : {"<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"}) {
    CHECK(parse(std::string("a") + end + "b", kContent) == Parsed{"", "a", true, ""});
  }
  CHECK(parse("a<｜begin▁of▁sentence｜>b", kContent) == Parsed{"", "ab", false, ""});
  CHECK(parse("<｜begin▁of▁sentence｜>b", kReasoning) == Parsed{"b", "", false, ""});
  // No tools are declared: the marker of a tool call is text.
  CHECK(parse("a\n\n<｜DSML｜tool_calls>", kContent) ==
        Parsed{"", "a\n\n<｜DSML｜tool_calls>", false, ""});
  CHECK(parse("<｜DSML｜x</think>y", kReasoning) == Parsed{"<｜DSML｜x", "y", false, ""});
  // Spelled with ordinary tokens a delimiter is text.
  const std::string spelled = "</think><think>" + kEos;
  CHECK(parse_ids(small().encode(spelled, Specials::kAsText), kContent, {}) ==
        Parsed{"", spelled, false, ""});
}

TEST_CASE("characters are never cut") {
  CHECK(parse("中🙂</think>é中" + kEos, kReasoning) == Parsed{"中🙂", "é中", true, ""});
  CHECK(parse("\xE4\xB8</think>\xF0\x9F\x99", kReasoning) == Parsed{"\uFFFD", "\uFFFD", false, ""});
  CHECK(parse("\xE4\xB8" + kEos, kContent) == Parsed{"", "\uFFFD", true, ""});
  CHECK(parse("\xE4\xB8<think>a", kContent) == Parsed{"", "\uFFFDa", false, ""});
  // A dropped token does not tear the bytes around it apart.
  CHECK(parse("\xE4\xB8<｜begin▁of▁sentence｜>\xAD", kContent) == Parsed{"", "中", false, ""});
}

TEST_CASE("stop strings end the content in front of them") {
  CHECK(parse("one END two", kContent, {"END"}) == Parsed{"", "one ", true, "END"});
  CHECK(parse("END</think>a END", kReasoning, {"END"}) == Parsed{"END", "a ", true, "END"});
  CHECK(parse("one EN", kContent, {"END"}) == Parsed{"", "one EN", false, ""});
  CHECK(parse("EEND", kContent, {"END"}) == Parsed{"", "E", true, "END"});
  CHECK(parse("aabaabaaab!", kContent, {"aabaaa"}) == Parsed{"", "aab", true, "aabaaa"});
  CHECK(parse("xabcd", kContent, {"abcd", "bc"}) ==
        Parsed{"", "xa", true, "bc"});  // complete first
  CHECK(parse("xabc", kContent, {"c", "abc", "bc", ""}) ==
        Parsed{"", "x", true, "abc"});  // longest
  CHECK(parse("\n\nab", kContent, {"\n\n"}) == Parsed{"", "", true, "\n\n"});
  CHECK(parse(" \n<think>r</think>\nx", kContent, {"\n\n"}) == Parsed{"r", "\nx", false, ""});
  CHECK(parse("a中b", kContent, {"中"}) == Parsed{"", "a", true, "中"});
  CHECK(parse("a\xE4\xB8", kContent, {"\uFFFD"}) == Parsed{"", "a", true, "\uFFFD"});

  // What is held back is the longest suffix that may become a stop string, no more.
  ChatParser parser(small(), tokens(), kContent, {"zzq"});
  CHECK(parser.feed('a').content == "a");
  CHECK(parser.feed('z').content == "");
  CHECK(parser.feed('z').content == "");
  CHECK(parser.feed('z').content == "z");
  CHECK(parser.feed('b').content == "zzb");
  CHECK(parser.feed(tokens().eos).content == "");
  CHECK(parser.feed('c').content == "");
}
