// Any bytes must survive encoding and decoding, and reach the parser and the JSON reader without
// harm. The first byte picks the mode, the rest is the text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "tests/text/small_vocabulary.h"
#include "text/chat_parser.h"
#include "text/json_text.h"
#include "text/tokenizer.h"

using namespace hearth;

namespace {

enum Mode { kAsText, kMatch, kParse, kJson, kModes };

const Tokenizer& tokenizer() {
  static const Tokenizer instance(test::small_vocabulary().dir(), "small");
  return instance;
}

void round_trip(std::string_view text, Specials specials) {
  const std::vector<int32_t> ids = tokenizer().encode(text, specials);
  HEARTH_CHECK(tokenizer().decode(ids) == text);
  if (specials == Specials::kMatch) return;
  for (const int32_t id : ids) HEARTH_CHECK(!tokenizer().is_special(id));
}

// The result of a stream must not depend on how its bytes are cut into tokens.
std::string parsed(const std::vector<int32_t>& ids) {
  static const ChatTokens tokens = *find_chat_tokens(tokenizer()).tokens;
  ChatParser parser(tokenizer(), tokens, true, {"ab", "aab", "\n\n"});
  ChatDelta all;
  const auto take = [&](const ChatDelta& delta) {
    all.reasoning += delta.reasoning;
    all.content += delta.content;
  };
  for (const int32_t id : ids) take(parser.feed(id));
  take(parser.finish());
  return all.reasoning + "|" + all.content;
}

void parse_both_ways(std::string_view text) {
  const std::vector<int32_t> ids = tokenizer().encode(text, Specials::kMatch);
  std::vector<int32_t> apart;
  for (const int32_t id : ids) {
    if (tokenizer().is_special(id)) {
      apart.push_back(id);
    } else {
      for (const char byte : tokenizer().token_bytes(id)) {
        apart.push_back(static_cast<unsigned char>(byte));
      }
    }
  }
  HEARTH_CHECK(parsed(ids) == parsed(apart));
}

// What was written once is written the same again.
void json_both_ways(std::string_view text) {
  const auto value = parse_json(text);
  if (!value) return;
  const std::string written = prompt_json(*value);
  const auto again = parse_json(written);
  const bool has_infinity = written.find("Infinity") != std::string::npos;
  HEARTH_CHECK(has_infinity || (again && prompt_json(*again) == written));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % kModes) {
    case kAsText:
      round_trip(text, Specials::kAsText);
      break;
    case kMatch:
      round_trip(text, Specials::kMatch);
      break;
    case kParse:
      parse_both_ways(text);
      break;
    case kJson:
      json_both_ways(text);
      break;
  }
  return 0;
}
