// The interactive chat of `hearth run`.
#pragma once

#include "cli/answer.h"

namespace hearth::cli {

struct InteractiveOptions {
  std::string system;
  ThinkMode think = ThinkMode::kOff;
  AnswerOptions answer;
  bool keep_history = true;
};

// Talks until /quit or the end of input.
void run_interactive(Engine& engine, const InteractiveOptions& options);

// Prints an answer as it comes: text to standard output, reasoning dimmed to standard error.
AnswerSink printing_sink();

}  // namespace hearth::cli
