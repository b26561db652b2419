#include "text/message_json.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "base/error.h"
#include "text/json_text.h"

namespace hearth {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<std::string_view, Role> kRoles[] = {
    {"system", Role::kSystem},
    {"user", Role::kUser},
    {"assistant", Role::kAssistant},
    {"developer", Role::kDeveloper},
    {"latest_reminder", Role::kLatestReminder},
};
constexpr std::pair<std::string_view, Task> kTasks[] = {
    {"action", Task::kAction}, {"query", Task::kQuery}, {"authority", Task::kAuthority},
    {"domain", Task::kDomain}, {"title", Task::kTitle}, {"read_url", Task::kReadUrl},
};

// One message; `where_` names it in errors, "messages[2]".
class MessageReader {
 public:
  MessageReader(const Json& message, std::string where)
      : message_(message), where_(std::move(where)) {}

  Message read() const {
    if (!message_.is_object()) fail("", "is not an object");
    refuse_tools();
    Message out;
    const Json* role = member("role");
    if (!role) fail("role", "is missing");
    out.role = named(kRoles, "role", *role);
    if (const Json* task = member("task")) out.task = named(kTasks, "task", *task);
    if (const Json* content = member("content")) out.content = read_content(*content);
    for (const char* name : {"reasoning_content", "reasoning", "thinking"}) {
      const Json* reasoning = member(name);
      if (!reasoning) continue;
      out.reasoning = text(name, *reasoning);
      break;
    }
    if (const Json* format = member("response_format")) out.response_format = prompt_json(*format);
    if (const Json* open = member("wo_eos")) {
      if (!open->is_boolean()) fail("wo_eos", "is neither true nor false");
      out.is_open = open->get<bool>();
    }
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& what) const {
    throw usage_error(what, name.empty() ? where_ : where_ + "." + name, "");
  }

  // Null where the member is absent or null.
  const Json* member(const char* name) const {
    const auto found = message_.find(name);
    return found == message_.end() || found->is_null() ? nullptr : &*found;
  }

  const std::string& text(const std::string& name, const Json& value) const {
    if (!value.is_string()) fail(name, "is not a string");
    return value.get_ref<const std::string&>();
  }

  template <typename Value, size_t count>
  Value named(const std::pair<std::string_view, Value> (&names)[count], const char* name,
              const Json& value) const {
    const std::string& wanted = text(name, value);
    for (const auto& [known, result] : names) {
      if (known == wanted) return result;
    }
    fail(name, "has a value that is not known: " + prompt_json(value));
  }

  void refuse_tools() const {
    for (const char* name : {"tools", "tool_calls"}) {
      const Json* list = member(name);
      if (list && !list->empty()) fail(name, "is given, but tools are not supported");
    }
  }

  std::string read_content(const Json& content) const {
    if (!content.is_array()) return text("content", content);
    std::string joined;
    for (size_t i = 0; i < content.size(); ++i) {
      const std::string name = fmt::format("content[{}]", i);
      const Json& part = content[i];
      const bool is_text = part.is_object() && part.contains("type") && part["type"] == "text" &&
                           part.contains("text");
      if (!is_text) fail(name, "is not a text part, and the model reads text only");
      if (i > 0) joined += "\n\n";
      joined += text(name + ".text", part["text"]);
    }
    return joined;
  }

  const Json& message_;
  std::string where_;
};

}  // namespace

std::vector<Message> read_messages(const Json& messages) {
  if (!messages.is_array()) throw usage_error("is not a list", "messages", "");
  std::vector<Message> out;
  for (size_t i = 0; i < messages.size(); ++i) {
    out.push_back(MessageReader(messages[i], fmt::format("messages[{}]", i)).read());
  }
  return out;
}

}  // namespace hearth
