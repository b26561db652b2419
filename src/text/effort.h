// Reasoning effort: the names clients use, and the text a prompt opens with (spec chat.md 2.2). Two
// releases of the model were trained on different texts; the profile says which.
#pragma once

#include <optional>
#include <string_view>

#include "format/tensor_dir.h"

namespace hearth {

enum class ChatProfile { kPreview, k0731 };
enum class Effort { kLow, kHigh, kMax };

// From the chat template or the name that the file carries.
ChatProfile find_chat_profile(const TensorDir& dir);

// What an effort name asks for; no effort where no text is to be written.
struct Thinking {
  bool is_on;
  std::optional<Effort> effort;
};
// "none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"; nothing for any other name.
std::optional<Thinking> find_thinking(std::string_view name, ChatProfile profile);

// What stands between BOS and the first message in thinking mode; may be empty.
std::string_view effort_text(std::optional<Effort> effort, ChatProfile profile);

}  // namespace hearth
