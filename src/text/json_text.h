// JSON as it stands in prompts (spec chat.md 2.10): parsed and written again in the one form the
// model was trained on, that of Python's json.dumps(ensure_ascii=False).
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace hearth {

// Nothing where `text` is not JSON or nests deeper than kJsonDepthMax. A repeated member keeps its
// first position and its last value; a lone surrogate escape becomes U+FFFD. What a JSON value of
// the library cannot hold is kept this way: integers beyond 64 bits as binary values that hold
// their digits, numbers beyond a double as infinity.
std::optional<nlohmann::ordered_json> parse_json(std::string_view text);
constexpr int kJsonDepthMax = 500;

// Writes a value of parse_json(), or one built in code. Throws Error where it nests deeper than
// kJsonDepthMax.
std::string prompt_json(const nlohmann::ordered_json& value);

}  // namespace hearth
