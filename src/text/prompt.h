// A prompt as segments: control tokens as ids, everything else as text that never becomes a control
// token (spec chat.md 1.6).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/tokenizer.h"

namespace hearth {

class Prompt {
 public:
  using Segment = std::variant<int32_t, std::string>;  // a control token or text

  void add_control(int32_t id) { segments_.emplace_back(id); }
  // Adjacent texts are one segment: pieces cross the border between template and message.
  void add_text(std::string_view text);

  const std::vector<Segment>& segments() const { return segments_; }

 private:
  std::vector<Segment> segments_;
};

std::vector<int32_t> to_ids(const Prompt& prompt, const Tokenizer& tokenizer);

// The prompt as one string, control tokens as their literal text: to look at, never to tokenize.
std::string to_string(const Prompt& prompt, const Tokenizer& tokenizer);

}  // namespace hearth
