// The control tokens of the chat format, looked up by their strings (spec chat.md 1.5, 1.7).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "text/message.h"
#include "text/tokenizer.h"

namespace hearth {

struct ChatTokens {
  int32_t bos;
  int32_t eos;
  int32_t user;
  int32_t assistant;
  int32_t think;
  int32_t end_think;
  int32_t dsml;
  // Not in every vocabulary; a message that needs an absent one is refused.
  std::optional<int32_t> latest_reminder;
  std::optional<int32_t> tasks[6];  // by Task

  std::optional<int32_t> task(Task task) const { return tasks[static_cast<size_t>(task)]; }
};

// Whether a vocabulary can chat. It cannot where a needed token is missing, where it has the size
// of the released one but another added token in the place of one of these, or where it is
// DeepSeek-V4.1's.
struct ChatSupport {
  std::optional<ChatTokens> tokens;
  std::string why_not;  // in words, where there are no tokens
};
ChatSupport find_chat_tokens(const Tokenizer& tokenizer);
bool chat_available(const Tokenizer& tokenizer);

}  // namespace hearth
