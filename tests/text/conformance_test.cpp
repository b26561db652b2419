// The real vocabulary against data that lies beside the checkout: token ids from the reference
// tokenizer, prompts from the reference encoder, token counts from the hosted API.
#include <doctest/doctest.h>

#include <chrono>
#include <sstream>

#include "base/error.h"
#include "format/gguf.h"
#include "support.h"
#include "text/chat.h"
#include "text/chat_parser.h"
#include "text/json_text.h"
#include "text/message_json.h"

using namespace hearth;
using Json = nlohmann::ordered_json;

namespace {

const char* const kNoShared = "the released vocabulary and its cases are not in the repository";

const TensorDir& directory() {
  static const TensorDir instance = open_gguf(test::shared("data/tokenizer/dsv4-vocab.gguf"));
  return instance;
}
const Tokenizer& released() {
  static const Tokenizer instance(directory(), "dsv4-vocab.gguf");
  return instance;
}
const ChatTokens& tokens() {
  static const ChatTokens instance = find_chat_tokens(released()).tokens.value();
  return instance;
}

// The lines of a file after its header line.
std::vector<Json> read_lines(const std::string& name) {
  std::istringstream in(test::read_text(test::shared("data/tokenizer/" + name)));
  std::vector<Json> out;
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) out.push_back(Json::parse(line));
  return out;
}

const Json& chat_cases() {
  static const Json instance = Json::parse(test::read_text(test::shared("spec/chat-cases.json")));
  return instance;
}

std::vector<int32_t> ids_of(const Json& list) { return list.get<std::vector<int32_t>>(); }

bool uses_tools(const Json& messages) {
  for (const Json& message : messages) {
    if (message.contains("tools") || message.contains("tool_calls")) return true;
    if (message["role"] == "tool" || message["role"] == "function") return true;
  }
  return false;
}
bool case_uses_tools(const Json& one) {
  return (one.contains("tools") && !one["tools"].empty()) || uses_tools(one["messages"]);
}

ChatOptions options_of(const Json& one) {
  ChatOptions options;
  options.thinking = one["thinking_mode"] == "thinking";
  if (one.value("profile", "any") == "0731") options.profile = ChatProfile::k0731;
  if (const Json effort = one.value("reasoning_effort", Json()); effort.is_string()) {
    options.effort = effort == "max"    ? Effort::kMax
                     : effort == "high" ? Effort::kHigh
                                        : Effort::kLow;
  }
  options.drop_thinking = one.value("drop_thinking", true);
  options.add_bos = one.value("add_bos", true);
  return options;
}

}  // namespace

TEST_CASE("the released vocabulary loads quickly and can chat") {
  if (!test::has_shared()) return test::skip(kNoShared);
  const TensorDir& dir = directory();
  const auto start = std::chrono::steady_clock::now();
  const Tokenizer tokenizer(dir, "dsv4-vocab.gguf");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  MESSAGE("loaded in ", seconds.count(), " s");
  CHECK(tokenizer.vocab_size() == 129280);
  CHECK(chat_available(tokenizer));
  CHECK(tokens().dsml == 128825);
  CHECK(tokens().task(Task::kReadUrl) == 128845);
  CHECK(tokens().latest_reminder == 128828);
}

TEST_CASE("ids and pieces of the reference tokenizer") {
  if (!test::has_shared()) return test::skip(kNoShared);
  const std::vector<Json> goldens = read_lines("dsv4-tokenizer-goldens.jsonl");
  CHECK(goldens.size() == 144);
  for (const Json& one : goldens) {
    const std::string text = one["text"];
    CAPTURE(text);
    CHECK(released().encode(text, Specials::kMatch) == ids_of(one["ids"]));
    CHECK(released().decode(ids_of(one["ids"])) == text);
  }
  const std::vector<Json> extra = read_lines("dsv4-tokenizer-extra.jsonl");
  CHECK(extra.size() == 223);
  for (const Json& one : extra) {
    const std::string text = one["text"];
    CAPTURE(text);
    const std::vector<std::string_view> pieces = released().pieces(text);
    CHECK(std::vector<std::string>(pieces.begin(), pieces.end()) ==
          one["pieces"].get<std::vector<std::string>>());
    CHECK(released().encode(text, Specials::kAsText) == ids_of(one["ids_plain"]));
    CHECK(released().encode(text, Specials::kMatch) == ids_of(one["ids"]));
  }
}

TEST_CASE("token counts of the hosted API") {
  if (!test::has_shared()) return test::skip(kNoShared);
  const Json prompts =
      Json::parse(test::read_text(test::shared("data/tokenizer/official-api-token-counts.json")));
  CHECK(prompts.size() == 5);
  for (const Json& one : prompts) {
    Message user;
    user.content = one["prompt"];
    const std::vector<int32_t> ids = to_ids(encode_conversation(tokens(), {user}, {}), released());
    CHECK(ids.size() == one["prompt_tokens"].get<size_t>());
    CHECK(ids == ids_of(one["ids"]));
  }
}

TEST_CASE("prompts of the reference encoder, without tools") {
  if (!test::has_shared()) return test::skip(kNoShared);
  int ran = 0;
  for (const Json& one : chat_cases()["render_cases"]) {
    if (case_uses_tools(one)) continue;
    ++ran;
    CAPTURE(one["name"].get<std::string>());
    std::vector<Message> context;
    if (!one["context"].is_null()) context = read_messages(one["context"]);
    const Prompt prompt =
        encode_messages(tokens(), read_messages(one["messages"]), options_of(one), context);
    CHECK(to_string(prompt, released()) == one["rendered"].get<std::string>());
    CHECK(to_ids(prompt, released()) == ids_of(one["ids"]));
  }
  MESSAGE(ran, " of ", chat_cases()["render_cases"].size(), " render cases have no tools");
  CHECK(ran == 43);
}

TEST_CASE("normalised prompts, without tools") {
  if (!test::has_shared()) return test::skip(kNoShared);
  int ran = 0;
  for (const Json& one : chat_cases()["normalisation_cases"]) {
    if (case_uses_tools(one)) continue;
    ++ran;
    CAPTURE(one["name"].get<std::string>());
    const Prompt prompt =
        encode_conversation(tokens(), read_messages(one["messages"]), options_of(one));
    CHECK(to_string(prompt, released()) == one["rendered"].get<std::string>());
  }
  MESSAGE(ran, " of ", chat_cases()["normalisation_cases"].size(),
          " normalisation cases have no tools");
  CHECK(ran == 11);
}

TEST_CASE("control strings in messages stay text, without tools") {
  if (!test::has_shared()) return test::skip(kNoShared);
  int ran = 0;
  for (const Json& one : chat_cases()["injection_cases"]) {
    if (case_uses_tools(one)) continue;
    ++ran;
    CAPTURE(one["name"].get<std::string>());
    const Prompt prompt =
        encode_messages(tokens(), read_messages(one["messages"]), options_of(one));
    CHECK(to_ids(prompt, released()) == ids_of(one["ids_safe"]));
    CHECK(released().encode(to_string(prompt, released()), Specials::kMatch) ==
          ids_of(one["ids_reference"]));
  }
  MESSAGE(ran, " of ", chat_cases()["injection_cases"].size(), " injection cases have no tools");
  CHECK(ran == 7);
}

TEST_CASE("completions parsed as the reference parser does, without tools") {
  if (!test::has_shared()) return test::skip(kNoShared);
  int ran = 0;
  for (const Json& one : chat_cases()["parse_cases"]) {
    const std::string completion = one["completion"];
    const bool is_plain =
        one["expected"]["tool_calls"].empty() && completion.find("｜DSML｜") == std::string::npos;
    if (one["tools_declared"].get<bool>() && !is_plain) continue;
    ++ran;
    CAPTURE(one["name"].get<std::string>());
    std::vector<int32_t> apart;  // every ordinary token as the tokens of its bytes
    for (const int32_t id : ids_of(one["ids"])) {
      if (released().is_special(id)) {
        apart.push_back(id);
        continue;
      }
      for (const char byte : released().token_bytes(id)) {
        apart.push_back(released().encode(std::string(1, byte), Specials::kAsText).front());
      }
    }
    for (const std::vector<int32_t>& ids : {ids_of(one["ids"]), apart}) {
      ChatParser parser(released(), tokens(), one["thinking_mode"] == "thinking");
      ChatDelta all;
      const auto take = [&](const ChatDelta& delta) {
        all.reasoning += delta.reasoning;
        all.content += delta.content;
      };
      for (const int32_t id : ids) take(parser.feed(id));
      take(parser.finish());
      CHECK(all.reasoning == one["expected"]["reasoning_content"].get<std::string>());
      CHECK(all.content == one["expected"]["content"].get<std::string>());
      CHECK(parser.has_ended() == (one["expected_finish_reason"] == "stop"));
    }
  }
  MESSAGE(ran, " of ", chat_cases()["parse_cases"].size(), " parse cases need no tools");
  CHECK(ran == 13);
}

TEST_CASE("vocabularies with other pre-tokenizers are refused by name") {
  if (!test::has_shared()) return test::skip(kNoShared);
  for (const char* name : {"deepseek-llm", "deepseek-coder"}) {
    const TensorDir dir =
        open_gguf(test::shared(std::string("data/tokenizer/ggml-vocab-") + name + ".gguf"));
    try {
      Tokenizer tokenizer(dir, name);
      FAIL("not refused");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(std::string("tokenizer.ggml.pre is '") + name) !=
            std::string::npos);
    }
  }
}
