// Generated tokens to reasoning and content, as they come (spec chat.md section 3), without tools.
// Driven by ids: text that only looks like a delimiter is text. Whatever the cut of the stream, the
// deltas add up to the same result.
#pragma once

#include <string>
#include <vector>

#include "text/chat_tokens.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace hearth {

// What one token adds; well-formed UTF-8, often empty.
struct ChatDelta {
  std::string reasoning;
  std::string content;
};

class ChatParser {
 public:
  // `in_reasoning`: opens_reasoning() of the prompt. Stop strings count in the content only. The
  // tokenizer must outlive the parser.
  ChatParser(const Tokenizer& tokenizer, const ChatTokens& tokens, bool in_reasoning,
             const std::vector<std::string>& stop_strings = {});

  ChatDelta feed(int32_t id);
  // The stream is over (end of turn or a limit): what was still held back.
  ChatDelta finish();

  // The model or a stop string ended the turn; later tokens are ignored. While false, only a limit
  // can end it.
  bool has_ended() const { return has_ended_; }
  // The stop string that did, or null.
  const std::string* stop_string() const { return stops_.matched(); }

 private:
  bool ends_turn(int32_t id) const;
  ChatDelta on_think();
  ChatDelta on_end_think();
  ChatDelta on_text(std::string text);
  std::string take_content(const std::string& text);

  const Tokenizer& tokenizer_;
  ChatTokens tokens_;
  bool in_reasoning_;
  bool has_ended_ = false;
  bool content_has_begun_ = false;  // there was something other than white space
  Utf8Stream utf8_;
  StopMatcher stops_;
  std::string leading_space_;  // of the content, held back: <think> may follow and make it markup
};

}  // namespace hearth
