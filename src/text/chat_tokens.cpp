#include "text/chat_tokens.h"

#include <fmt/format.h>

#include <string_view>

namespace hearth {
namespace {

constexpr int32_t kReleasedVocabSize = 129280;

struct Needed {
  std::string_view text;
  int32_t released_id;
  int32_t ChatTokens::*member;
};
constexpr Needed kNeeded[] = {
    {"<｜begin▁of▁sentence｜>", 0, &ChatTokens::bos},
    {"<｜end▁of▁sentence｜>", 1, &ChatTokens::eos},
    {"<｜User｜>", 128803, &ChatTokens::user},
    {"<｜Assistant｜>", 128804, &ChatTokens::assistant},
    {"<think>", 128821, &ChatTokens::think},
    {"</think>", 128822, &ChatTokens::end_think},
    {"｜DSML｜", 128825, &ChatTokens::dsml},
};

constexpr std::string_view kLaterSystemToken = "<｜System｜>";  // DeepSeek-V4.1's

constexpr std::string_view kTaskTexts[] = {"<｜action｜>", "<｜query｜>", "<｜authority｜>",
                                           "<｜domain｜>", "<｜title｜>", "<｜read_url｜>"};
static_assert(std::size(kTaskTexts) == std::size(ChatTokens{}.tasks));

// A vocabulary that was only padded to the released size has no added tokens at the released
// places.
bool contradicts_release(const Tokenizer& tokenizer, const Needed& needed, int32_t id) {
  return tokenizer.vocab_size() == kReleasedVocabSize && id != needed.released_id &&
         tokenizer.is_special(needed.released_id);
}

}  // namespace

ChatSupport find_chat_tokens(const Tokenizer& tokenizer) {
  ChatTokens tokens{};
  std::string missing, moved;
  for (const Needed& needed : kNeeded) {
    const std::optional<int32_t> id = tokenizer.find_special(needed.text);
    if (!id) {
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", needed.text);
    } else if (contradicts_release(tokenizer, needed, *id)) {
      moved += fmt::format("{}{} is {} instead of {}", moved.empty() ? "" : ", ", needed.text, *id,
                           needed.released_id);
    } else {
      tokens.*needed.member = *id;
    }
  }
  if (tokenizer.find_special(kLaterSystemToken)) {
    return {{},
            "the vocabulary is that of a later model with another chat format (it has " +
                std::string(kLaterSystemToken) + ")"};
  }
  if (!missing.empty()) return {{}, "the vocabulary lacks the chat tokens " + missing};
  if (!moved.empty()) return {{}, "the chat tokens are not DeepSeek-V4's: " + moved};

  tokens.latest_reminder = tokenizer.find_special("<｜latest_reminder｜>");
  for (size_t i = 0; i < std::size(kTaskTexts); ++i) {
    tokens.tasks[i] = tokenizer.find_special(kTaskTexts[i]);
  }
  return {tokens, ""};
}

bool chat_available(const Tokenizer& tokenizer) {
  return find_chat_tokens(tokenizer).tokens.has_value();
}

}  // namespace hearth
