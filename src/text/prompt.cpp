#include "text/prompt.h"

namespace hearth {

void Prompt::add_text(std::string_view text) {
  if (text.empty()) return;
  if (!segments_.empty()) {
    if (auto* last = std::get_if<std::string>(&segments_.back())) {
      *last += text;
      return;
    }
  }
  segments_.emplace_back(std::string(text));
}

std::vector<int32_t> to_ids(const Prompt& prompt, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const Prompt::Segment& segment : prompt.segments()) {
    if (const auto* id = std::get_if<int32_t>(&segment)) {
      ids.push_back(*id);
      continue;
    }
    const std::vector<int32_t> text =
        tokenizer.encode(std::get<std::string>(segment), Specials::kAsText);
    ids.insert(ids.end(), text.begin(), text.end());
  }
  return ids;
}

std::string to_string(const Prompt& prompt, const Tokenizer& tokenizer) {
  std::string out;
  for (const Prompt::Segment& segment : prompt.segments()) {
    const auto* id = std::get_if<int32_t>(&segment);
    out += id ? tokenizer.token_bytes(*id) : std::get<std::string>(segment);
  }
  return out;
}

}  // namespace hearth
