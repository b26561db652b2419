#include "text/chat_parser.h"

#include <utility>

namespace hearth {

ChatParser::ChatParser(const Tokenizer& tokenizer, const ChatTokens& tokens, bool in_reasoning,
                       const std::vector<std::string>& stop_strings)
    : tokenizer_(tokenizer), tokens_(tokens), in_reasoning_(in_reasoning), stops_(stop_strings) {}

bool ChatParser::ends_turn(int32_t id) const {
  return id == tokens_.eos || id == tokens_.user || id == tokens_.assistant ||
         id == tokens_.latest_reminder;
}

ChatDelta ChatParser::feed(int32_t id) {
  if (has_ended_) return {};
  if (ends_turn(id)) {
    ChatDelta delta = finish();
    has_ended_ = true;
    return delta;
  }
  if (id == tokens_.think) return on_think();
  if (id == tokens_.end_think) return on_end_think();
  // The tool-call marker is text where no tools are declared; other control tokens are slips of the
  // model.
  if (tokenizer_.is_special(id) && id != tokens_.dsml) return {};
  return on_text(utf8_.feed(tokenizer_.token_bytes(id)));
}

// Opens reasoning in front of the content; anywhere else it is dropped.
ChatDelta ChatParser::on_think() {
  if (in_reasoning_) return {};
  ChatDelta delta = on_text(utf8_.finish());
  if (!content_has_begun_ && !has_ended_) {
    leading_space_.clear();
    stops_.reset();
    in_reasoning_ = true;
  }
  return delta;
}

ChatDelta ChatParser::on_end_think() {
  if (!in_reasoning_) return {};
  ChatDelta delta = on_text(utf8_.finish());
  in_reasoning_ = false;
  return delta;
}

ChatDelta ChatParser::on_text(std::string text) {
  if (in_reasoning_) return {std::move(text), ""};
  return {"", take_content(text)};
}

std::string ChatParser::take_content(const std::string& text) {
  if (text.find_first_not_of(" \t\n\v\f\r") != std::string::npos) content_has_begun_ = true;
  leading_space_ += stops_.feed(text);
  has_ended_ = stops_.matched() != nullptr;
  if (!content_has_begun_ && !has_ended_) return {};
  return std::exchange(leading_space_, {});
}

ChatDelta ChatParser::finish() {
  if (has_ended_) return {};
  ChatDelta delta = on_text(utf8_.finish());
  if (in_reasoning_ || has_ended_) return delta;
  delta.content += std::exchange(leading_space_, {});
  delta.content += stops_.finish();
  return delta;
}

}  // namespace hearth
