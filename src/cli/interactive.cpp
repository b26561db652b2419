#include "cli/interactive.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "base/error.h"
#include "cli/conversation.h"
#include "cli/line_editor.h"

namespace hearth::cli {
namespace {

constexpr const char* kHelp =
    "  /help                this list\n"
    "  /think off|on|max    how long the model thinks before it answers\n"
    "  /system TEXT         start over with this system message; without TEXT, with none\n"
    "  /clear               forget the conversation\n"
    "  /quit                leave (Ctrl-D does too)\n"
    "A line that ends in \\ goes on in the next. Ctrl-C stops an answer.\n";

class Chat {
 public:
  Chat(Engine& engine, const InteractiveOptions& options)
      : conversation_(engine), options_(options), think_(options.think) {
    conversation_.restart(options.system);
  }

  // Returns false when the person wants to leave.
  bool handle(const std::string& line) {
    if (line.find_first_not_of(" \t\n") == std::string::npos) return true;
    if (!line.starts_with('/')) {
      answer(line);
      return true;
    }
    const size_t space = line.find(' ');
    const std::string command = line.substr(0, space);
    const std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
    if (command == "/quit" || command == "/exit") return false;
    obey(command, argument);
    return true;
  }

 private:
  void obey(const std::string& command, const std::string& argument) {
    if (command == "/help") {
      fmt::print(stderr, "{}", kHelp);
    } else if (command == "/clear") {
      conversation_.restart(conversation_.system());
      fmt::print(stderr, "The conversation is forgotten.\n");
    } else if (command == "/system") {
      conversation_.restart(argument);
      fmt::print(stderr, "A new conversation {} a system message.\n",
                 argument.empty() ? "without" : "with");
    } else if (command == "/think" && set_think(argument)) {
      fmt::print(stderr, "Thinking is {}.\n", argument);
    } else {
      fmt::print(stderr, "'{} {}' is no command. /help lists them.\n", command, argument);
    }
  }

  bool set_think(const std::string& name) {
    const auto mode = kThinkModes.find(name);
    if (mode != kThinkModes.end()) think_ = mode->second;
    return mode != kThinkModes.end();
  }

  void answer(const std::string& text) {
    const InterruptGuard interrupt;
    try {
      const Answer answer =
          conversation_.ask(text, think_, options_.answer, interrupt, printing_sink());
      fmt::print("\n");
      std::fflush(stdout);
      fmt::print(stderr, "[{}{}]\n\n", describe_speed(answer.figures),
                 answer.stop_reason == "stop" ? "" : ", " + answer.stop_reason);
    } catch (const Error& error) {
      // The talk goes on: a message that doesn't fit can be answered by /clear.
      fmt::print(stderr, "hearth: {}\n", error.what());
    }
  }

  Conversation conversation_;
  const InteractiveOptions& options_;
  ThinkMode think_;
};

}  // namespace

AnswerSink printing_sink() {
  const bool color = isatty(STDERR_FILENO) == 1;
  const auto thinking = std::make_shared<bool>(false);
  AnswerSink sink;
  sink.reasoning = [color, thinking](const std::string& part) {
    if (!*thinking && color) fmt::print(stderr, "\033[2m");
    *thinking = true;
    fmt::print(stderr, "{}", part);
    std::fflush(stderr);
  };
  sink.text = [color, thinking](const std::string& part) {
    if (*thinking) fmt::print(stderr, "{}\n\n", color ? "\033[0m" : "");
    *thinking = false;
    fmt::print("{}", part);
    std::fflush(stdout);
  };
  return sink;
}

void run_interactive(Engine& engine, const InteractiveOptions& options) {
  chat_tokens(engine);  // says so at once where the model can't chat
  LineEditor editor(options.keep_history ? default_history_file() : std::filesystem::path());
  Chat chat(engine, options);
  fmt::print(stderr, "/help lists what you can do here.\n");
  std::string line;
  while (true) {
    InterruptGuard interrupt;
    const LineEditor::Outcome outcome = editor.read("> ", line);
    if (outcome == LineEditor::Outcome::kInterrupted && interrupt.requested()) {
      fmt::print(stderr, "\nCtrl-D or /quit leaves.\n");
      continue;
    }
    if (outcome != LineEditor::Outcome::kLine || !chat.handle(line)) break;
  }
}

}  // namespace hearth::cli
