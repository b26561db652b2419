// Conversations to prompts: DeepSeek-V4's chat encoding (spec chat.md section 2), without tools.
#pragma once

#include <optional>
#include <vector>

#include "text/chat_tokens.h"
#include "text/effort.h"
#include "text/message.h"
#include "text/prompt.h"

namespace hearth {

struct ChatOptions {
  bool thinking = false;  // thinking mode, else chat mode
  std::optional<Effort> effort = {};
  ChatProfile profile = ChatProfile::kPreview;
  bool drop_thinking = true;  // leave out the reasoning of turns before the last user turn
  bool add_bos = true;
};

// Exactly what the model's own encoder writes. `context`: messages that stand in front and are
// encoded already; they decide what the new ones look like but are not written, nor is BOS. Throws
// a usage Error for a message that cannot be written: an empty developer message, a task or
// reminder that the vocabulary has no token for.
Prompt encode_messages(const ChatTokens& tokens, const std::vector<Message>& messages,
                       const ChatOptions& options, const std::vector<Message>& context = {});

// What a person's client sent, made well-formed (spec chat.md 2.11): developer becomes system,
// consecutive assistant messages become one, a last assistant message is left open for the model to
// continue. Throws a usage Error where there is no message.
std::vector<Message> normalise(std::vector<Message> messages);

// The prompt for the next answer: normalised, and always ending inside an open assistant turn.
Prompt encode_conversation(const ChatTokens& tokens, const std::vector<Message>& messages,
                           const ChatOptions& options);

// Whether what the model writes after `prompt` starts as reasoning.
bool opens_reasoning(const Prompt& prompt, const ChatTokens& tokens);

}  // namespace hearth
