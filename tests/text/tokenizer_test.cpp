// Merging, added tokens, round trips of any bytes, and every way in which a vocabulary can be
// wrong.
#include "text/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <random>
#include <thread>

#include "base/error.h"
#include "format/gguf.h"
#include "small_vocabulary.h"
#include "support.h"
#include "text/bpe.h"

using namespace hearth;

namespace {

using Ids = std::vector<int32_t>;

const Tokenizer& demo() {
  static const Tokenizer instance(open_gguf(test::models("demo.gguf")), "demo.gguf");
  return instance;
}

const Tokenizer& small() {
  static const Tokenizer instance(test::small_vocabulary().dir(), "small");
  return instance;
}

int32_t id_of(const Tokenizer& tokenizer, const std::string& bytes) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.token_bytes(id) == bytes) return id;
  }
  FAIL("no token ", bytes);
  return -1;
}

// The definition: join the leftmost pair of lowest rank until there is none.
Ids merged_slowly(const test::SmallVocabulary& vocabulary, std::vector<std::string> symbols) {
  for (;;) {
    size_t best = vocabulary.merges.size(), at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const std::string pair = symbols[i] + " " + symbols[i + 1];
      for (size_t rank = 0; rank < best; ++rank) {
        if (vocabulary.merges[rank] == pair) best = rank, at = i;
      }
    }
    if (best == vocabulary.merges.size()) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) {
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), symbol);
    ids.push_back(static_cast<int32_t>(found - vocabulary.tokens.begin()));
  }
  return ids;
}

std::string random_bytes(std::mt19937& random, size_t count, const std::string& alphabet) {
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    out += alphabet.empty() ? static_cast<char>(random()) : alphabet[random() % alphabet.size()];
  }
  return out;
}

std::string error_of(const test::SmallVocabulary& vocabulary,
                     const std::function<void(TensorDir&)>& damage = {}) {
  TensorDir dir = vocabulary.dir();
  if (damage) damage(dir);
  try {
    Tokenizer tokenizer(dir, "file.gguf");
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("merging: lowest rank first, leftmost among equals") {
  const Tokenizer& t = small();
  const auto ids = [&](const std::string& text) { return t.encode(text, Specials::kAsText); };
  CHECK(ids("").empty());
  CHECK(ids("abc") == Ids{id_of(t, "abc")});
  CHECK(ids("bcabc") == Ids{id_of(t, "bc"), id_of(t, "abc")});
  CHECK(ids("zzz") == Ids{id_of(t, "zz"), 'z'});
  CHECK(ids("     ") == Ids{id_of(t, "    "), ' '});
  CHECK(ids("b a") == Ids{'b', id_of(t, " a")});
  CHECK(ids("a \n") == Ids{'a', ' ', '\n'});
}

TEST_CASE("merging agrees with its definition on random pieces") {
  test::SmallVocabulary vocabulary = test::small_vocabulary();
  std::mt19937 random(1);
  const std::string letters = "abcz";
  std::vector<std::string> known = {"a", "b", "c", "z", "ab", "bc", "abc", "zz"};
  while (vocabulary.merges.size() < 40) {
    const std::string left = known[random() % known.size()], right = known[random() % known.size()];
    if (std::find(known.begin(), known.end(), left + right) != known.end()) continue;
    known.push_back(left + right);
    vocabulary.merge(left, right);
  }
  const Tokenizer tokenizer(vocabulary.dir(), "random");
  for (int i = 0; i < 300; ++i) {
    const std::string word = random_bytes(random, 1 + random() % 60, letters);
    std::vector<std::string> symbols;
    for (const char c : word) symbols.emplace_back(1, c);
    CHECK(tokenizer.encode(word, Specials::kAsText) == merged_slowly(vocabulary, symbols));
  }
}

TEST_CASE("added tokens: leftmost, then longest; and only when asked for") {
  test::SmallVocabulary vocabulary = test::small_vocabulary();
  const int32_t tag = vocabulary.add("<t>", test::kControl);
  const int32_t longer = vocabulary.add("<t>>>", test::kUserDefined);
  const int32_t inner = vocabulary.add("t>", test::kControl);
  const int32_t overlapping = vocabulary.add(">x<t", test::kControl);
  const Tokenizer t(vocabulary.dir(), "file");
  const auto ids = [&](const std::string& text) { return t.encode(text, Specials::kMatch); };
  CHECK(ids("<t>") == Ids{tag});
  CHECK(ids("<t>>") == Ids{tag, '>'});
  CHECK(ids("<t>>>") == Ids{longer});
  CHECK(ids("a<t>x<t>") == Ids{'a', tag, 'x', tag});
  CHECK(ids("t>x<t>") == Ids{inner, 'x', tag});
  CHECK(ids("ab>x<t>") == Ids{id_of(t, "ab"), overlapping, '>'});
  CHECK(ids("a<t") == Ids{'a', '<', 't'});
  CHECK(t.encode("<t>", Specials::kAsText) == Ids{'<', 't', '>'});
  CHECK(t.find_special("<t>>>") == longer);
  CHECK(!t.find_special("ab"));
  CHECK(t.is_special(tag));
  CHECK(!t.is_special('a'));
}

TEST_CASE("the demo's vocabulary") {
  const Tokenizer& t = demo();
  CHECK(t.vocab_size() == 2048);
  CHECK(t.bos() == 0);
  CHECK(t.eos() == 1);
  CHECK(t.find_special("<｜User｜>") == 2036);
  CHECK(t.token_bytes(2038) == "<think>");
  CHECK(t.encode("a</think>b", Specials::kMatch).at(1) == 2039);
  for (const int32_t id : t.encode("a</think>b", Specials::kAsText)) CHECK(!t.is_special(id));
  // "th" is the first merge, " th" the second, " the" the third.
  CHECK(t.encode(" the", Specials::kAsText) == Ids{id_of(t, " the")});
}

TEST_CASE("any bytes survive encoding and decoding") {
  std::mt19937 random(2);
  const std::string mixed = "aZ 1\n\t.<|\xE4\xB8\xAD\xEF\xBD\x9C\xF0\x9F\x99\x82\xC3\xA9\xFF";
  for (const Tokenizer* t : {&small(), &demo()}) {
    for (int i = 0; i < 400; ++i) {
      const std::string text = random_bytes(random, random() % 80, i % 2 ? mixed : "");
      for (const Specials specials : {Specials::kAsText, Specials::kMatch}) {
        CHECK(t->decode(t->encode(text, specials)) == text);
      }
    }
  }
  // A cut character is a piece of its own and leaves its neighbours alone.
  CHECK(demo().pieces("the\xE4\xB8 5") ==
        std::vector<std::string_view>{"the", "\xE4\xB8", " ", "5"});
  CHECK(demo().pieces("\xFF\xFE") == std::vector<std::string_view>{"\xFF\xFE"});
}

TEST_CASE("long pieces are quick") {
  for (const std::string part : {" ", "a", "z", "ab", "the", "中", "\xFF"}) {
    std::string text;
    while (text.size() < 1000000) text += part;
    CAPTURE(part);
    const std::clock_t start = std::clock();
    CHECK((demo().decode(demo().encode(text, Specials::kMatch)) == text));
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    CHECK(seconds < 20);  // a quadratic step takes many minutes
  }
}

TEST_CASE("several threads encode at once") {
  const std::string text = "In the beginning God created the heaven and the earth. 1234 中文\n\n";
  const Ids expected = demo().encode(text, Specials::kMatch);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) count += demo().encode(text, Specials::kMatch) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("what a vocabulary must have") {
  const test::SmallVocabulary good = test::small_vocabulary();
  CHECK(error_of(good) == "no error");
  for (const char* key :
       {"model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id"}) {
    const std::string name = std::string("tokenizer.ggml.") + key;
    const std::string message = error_of(good, [&](TensorDir& dir) { dir.metadata.erase(name); });
    CHECK(contains(message, name + " is missing"));
    CHECK(contains(message, "file.gguf"));
  }
  const auto with = [&](const std::string& key, MetadataValue value) {
    return error_of(good, [&](TensorDir& dir) { dir.metadata["tokenizer.ggml." + key] = value; });
  };
  for (const char* pre : {"joyai-llm", "deepseek-v3", "deepseek-v4", "hunyuan-dense"}) {
    CHECK(with("pre", std::string(pre)) == "no error");
  }
  CHECK(contains(with("pre", std::string("deepseek-llm")), "'deepseek-llm', known are"));
  CHECK(contains(with("pre", std::string("x\n\x1b\xff")), "'x??\uFFFD'"));
  CHECK(contains(with("model", std::string("llama")), "'llama', only 'gpt2'"));
  CHECK(contains(with("tokens", std::vector<int64_t>{1}), "tokens is missing or of another type"));
  CHECK(contains(with("bos_token_id", int64_t{-1}), "bos_token_id is -1"));
  CHECK(
      contains(with("eos_token_id", int64_t(good.tokens.size())), "eos_token_id is 270, outside"));
  CHECK(contains(with("token_type", std::vector<int64_t>(3, 1)), "3 entries for 270 tokens"));
}

TEST_CASE("problems of tokens and merges are found and listed together") {
  const auto message_with = [](const std::function<void(test::SmallVocabulary&)>& damage) {
    test::SmallVocabulary vocabulary = test::small_vocabulary();
    damage(vocabulary);
    return error_of(vocabulary);
  };
  using V = test::SmallVocabulary;
  CHECK(contains(message_with([](V& v) { v.add("ab", test::kNormal); }), "token 270 repeats 'ab'"));
  CHECK(contains(message_with([](V& v) { v.add("<think>", test::kControl); }),
                 "added token 270 repeats '<think>'"));
  CHECK(contains(message_with([](V& v) { v.add("", test::kControl); }),
                 "added token 270 has 0 bytes"));
  CHECK(contains(message_with([](V& v) { v.add(std::string(257, 'x'), test::kControl); }),
                 "has 257 bytes"));
  CHECK(contains(message_with([](V& v) { v.add("q", 9); }), "token 270 has the unknown type 9"));
  CHECK(contains(message_with([](V& v) { v.tokens[65] = "no byte"; }),
                 "no token stands for the byte 65"));
  for (const char* bad :
       {"ab", "a", " ab", "ab ", "a  b", "a b c", "a ?b", "a z", "<think> a", ""}) {
    CHECK(contains(message_with([&](V& v) { v.merges.push_back(bad); }), "merge 7 ("));
  }
  CHECK(contains(message_with([](V& v) { v.merges.push_back("a b"); }), "merge 7 repeats 'a b'"));
  // Unused entries may repeat; a text that is not made of stand-ins decodes to itself.
  CHECK(message_with([](V& v) { v.add("[PAD]", test::kUnused), v.add("[PAD]", test::kUnused); }) ==
        "no error");
  CHECK(message_with([](V& v) { v.add("[a pad]", test::kNormal); }) == "no error");

  const std::string both = message_with([](V& v) {
    v.add("q", 9);
    v.merges.push_back("?");
  });
  CHECK(contains(both, "2 problems"));
}
