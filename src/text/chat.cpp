#include "text/chat.h"

#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace hearth {
namespace {

constexpr std::string_view kBlockSeparator = "\n\n";
constexpr std::string_view kResponseFormat =
    "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

// A message as it is rendered: consecutive user messages are one turn of several blocks.
struct Turn {
  const Message* message;  // the first of them
  std::vector<std::string_view> blocks;
  bool is_context;

  Role role() const { return message->role; }
  bool is_user_like() const { return role() == Role::kUser || role() == Role::kDeveloper; }
};

void append_turns(const std::vector<Message>& messages, bool is_context, std::vector<Turn>& turns) {
  bool can_join = false;  // the last turn is a user turn that takes further blocks
  for (const Message& message : messages) {
    const bool is_user = message.role == Role::kUser;
    if (is_user && can_join) {
      turns.back().blocks.push_back(message.content);
      continue;
    }
    turns.push_back({&message, {message.content}, is_context});
    can_join = is_user && !message.task;
  }
}

// Writes one prompt.
class Encoder {
 public:
  enum class Headers { kAsTrained, kComplete };

  Encoder(const ChatTokens& tokens, const ChatOptions& options, Headers headers)
      : tokens_(tokens), options_(options), headers_(headers) {}

  Prompt encode(const std::vector<Message>& messages, const std::vector<Message>& context) {
    append_turns(context, true, turns_);
    append_turns(messages, false, turns_);
    last_user_ = find_last_user();
    if (drops()) remove_earlier_developers();

    if (context.empty()) write_opening();
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (!turns_[i].is_context) write_turn(i);
    }
    if (headers_ == Headers::kComplete && !is_open_) write_header(options_.thinking);
    return std::move(prompt_);
  }

 private:
  bool drops() const { return options_.thinking && options_.drop_thinking; }

  // -1 where there is none.
  ptrdiff_t find_last_user() const {
    for (size_t i = turns_.size(); i > 0; --i) {
      if (turns_[i - 1].is_user_like()) return static_cast<ptrdiff_t>(i) - 1;
    }
    return -1;
  }

  void remove_earlier_developers() {
    ptrdiff_t index = 0;
    std::erase_if(turns_, [&](const Turn& turn) {
      return index++ < last_user_ && turn.role() == Role::kDeveloper;
    });
    last_user_ = find_last_user();
  }

  // The turn belongs to the part of the conversation whose reasoning is shown.
  bool is_recent(size_t i) const {
    return options_.thinking && (!drops() || static_cast<ptrdiff_t>(i) >= last_user_);
  }

  bool has_thinking_block(size_t assistant) const {
    return is_recent(assistant) && !turns_[assistant].message->skips_thinking;
  }

  const Turn* next(size_t i) const { return i + 1 < turns_.size() ? &turns_[i + 1] : nullptr; }

  void write_opening() {
    if (options_.add_bos) prompt_.add_control(tokens_.bos);
    if (options_.thinking) prompt_.add_text(effort_text(options_.effort, options_.profile));
  }

  void write_turn(size_t i) {
    const Message& message = *turns_[i].message;
    switch (message.role) {
      case Role::kSystem:
        prompt_.add_text(message.content);
        write_response_format(message);
        break;
      case Role::kUser:
        write_user(turns_[i]);
        break;
      case Role::kDeveloper:
        if (message.content.empty()) throw usage_error("a developer message is empty", "", "");
        write_user(turns_[i]);
        write_response_format(message);
        break;
      case Role::kAssistant:
        write_assistant(i);
        break;
      case Role::kLatestReminder:
        prompt_.add_control(needed(tokens_.latest_reminder, "a reminder"));
        prompt_.add_text(message.content);
        break;
    }
    write_what_follows(i);
  }

  void write_user(const Turn& turn) {
    prompt_.add_control(tokens_.user);
    is_open_ = false;
    std::string_view separator;
    for (const std::string_view block : turn.blocks) {
      prompt_.add_text(separator);
      prompt_.add_text(block);
      separator = kBlockSeparator;
    }
  }

  void write_assistant(size_t i) {
    const Message& message = *turns_[i].message;
    if (headers_ == Headers::kComplete && !is_open_) write_header(has_thinking_block(i));
    const bool answers_task = i > 0 && turns_[i - 1].message->task;
    if (has_thinking_block(i) && !answers_task) {
      prompt_.add_text(message.reasoning.value_or(""));
      prompt_.add_control(tokens_.end_think);
    }
    prompt_.add_text(message.content);
    if (message.is_open) return;
    prompt_.add_control(tokens_.eos);
    is_open_ = false;
  }

  void write_response_format(const Message& message) {
    if (message.response_format.empty()) return;
    prompt_.add_text(kResponseFormat);
    prompt_.add_text(message.response_format);
  }

  // The task token or the header of the answer belongs to the turn in front of it.
  void write_what_follows(size_t i) {
    const Turn& turn = turns_[i];
    const Turn* following = next(i);
    const bool is_answered = !following || following->role() == Role::kAssistant ||
                             following->role() == Role::kLatestReminder;
    if (!is_answered) return;
    if (turn.message->task) {
      write_task(*turn.message->task);
    } else if (turn.is_user_like()) {
      const bool is_skipped = following && following->message->skips_thinking;
      write_header(is_recent(i) && !is_skipped);
    }
  }

  void write_task(Task task) {
    const int32_t token = needed(tokens_.task(task), "this task");
    if (task == Task::kAction) write_header(options_.thinking);
    prompt_.add_control(token);
    is_open_ = true;
  }

  void write_header(bool opens_thinking) {
    prompt_.add_control(tokens_.assistant);
    prompt_.add_control(opens_thinking ? tokens_.think : tokens_.end_think);
    is_open_ = true;
  }

  static int32_t needed(std::optional<int32_t> token, const char* what) {
    if (!token) throw usage_error(std::string("the vocabulary has no token for ") + what, "", "");
    return *token;
  }

  const ChatTokens& tokens_;
  const ChatOptions& options_;
  const Headers headers_;
  std::vector<Turn> turns_;
  ptrdiff_t last_user_ = -1;  // the last user or developer turn
  bool is_open_ = false;      // what comes next is the answer of an assistant turn
  Prompt prompt_;
};

void join(std::string& text, const std::string& more) {
  if (!text.empty() && !more.empty()) text += kBlockSeparator;
  text += more;
}

void append_to_turn(Message& turn, const Message& more) {
  join(turn.content, more.content);
  if (more.reasoning) {
    if (!turn.reasoning) turn.reasoning.emplace();
    join(*turn.reasoning, *more.reasoning);
  }
  turn.task = more.task;
  turn.is_open = more.is_open;
}

}  // namespace

Prompt encode_messages(const ChatTokens& tokens, const std::vector<Message>& messages,
                       const ChatOptions& options, const std::vector<Message>& context) {
  return Encoder(tokens, options, Encoder::Headers::kAsTrained).encode(messages, context);
}

std::vector<Message> normalise(std::vector<Message> messages) {
  if (messages.empty()) throw usage_error("there is no message", "messages", "Send at least one");
  std::vector<Message> out;
  for (Message& message : messages) {
    if (message.role == Role::kDeveloper) message.role = Role::kSystem;
    const bool continues_turn = message.role == Role::kAssistant && !out.empty() &&
                                out.back().role == Role::kAssistant && !out.back().task;
    if (continues_turn) {
      append_to_turn(out.back(), message);
    } else {
      out.push_back(std::move(message));
    }
  }
  Message& last = out.back();
  if (last.role == Role::kAssistant && !last.task) {
    last.is_open = true;
    last.skips_thinking = last.reasoning.value_or("").empty();
  }
  return out;
}

Prompt encode_conversation(const ChatTokens& tokens, const std::vector<Message>& messages,
                           const ChatOptions& options) {
  return Encoder(tokens, options, Encoder::Headers::kComplete).encode(normalise(messages), {});
}

bool opens_reasoning(const Prompt& prompt, const ChatTokens& tokens) {
  for (size_t i = prompt.segments().size(); i > 0; --i) {
    if (const auto* id = std::get_if<int32_t>(&prompt.segments()[i - 1])) {
      return *id == tokens.think;
    }
  }
  return false;
}

}  // namespace hearth
