// A conversation as plain data: what the encoder renders and what a front end fills in.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace hearth {

enum class Role { kSystem, kUser, kAssistant, kDeveloper, kLatestReminder };

// A short auxiliary output that a turn asks for (spec chat.md 2.8).
enum class Task { kAction, kQuery, kAuthority, kDomain, kTitle, kReadUrl };

struct Message {
  Role role = Role::kUser;
  std::string content = {};
  std::optional<std::string> reasoning = {};  // of an assistant message
  std::optional<Task> task = {};
  // JSON text in the form of prompt_json(), of a system or developer message; empty: none.
  std::string response_format = {};
  bool is_open =
      false;  // an assistant turn that the model continues: no end of sentence is written
  bool skips_thinking =
      false;  // an assistant turn that has no thinking block, not even an empty one
};

}  // namespace hearth
