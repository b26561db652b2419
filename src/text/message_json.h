// Messages from the JSON that clients send (spec chat.md 2.1), with the spellings of 2.11 rules 2
// and 3.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "text/message.h"

namespace hearth {

// `messages`: an array of {"role", "content", ...}. Content may be a list of text parts, reasoning
// may be called reasoning_content, reasoning or thinking; unknown members are ignored. Throws a
// usage Error that names the member for anything else, which includes tools and tool calls.
std::vector<Message> read_messages(const nlohmann::ordered_json& messages);

}  // namespace hearth
