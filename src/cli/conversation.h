// A chat with a person: the messages so far, and the tokens the model has seen of them.
#pragma once

#include <memory>

#include "cli/answer.h"

namespace hearth::cli {

class Conversation {
 public:
  explicit Conversation(Engine& engine);

  // Starts over with this system message (may be empty).
  void restart(const std::string& system);
  const std::string& system() const { return system_; }

  // Answers the user's next message. When Error is thrown or the answer is interrupted while the
  // prompt is being read, the conversation is as it was before.
  Answer ask(const std::string& text, ThinkMode think, const AnswerOptions& options,
             const InterruptGuard& interrupt, const AnswerSink& sink);

 private:
  std::vector<int32_t> encode(const std::vector<Message>& messages, const ChatOptions& options,
                              bool& in_reasoning) const;

  Engine& engine_;
  std::unique_ptr<Session> session_;
  std::string system_;
  std::vector<Message> messages_;
  // What the model has seen and said in chat mode, where a conversation only grows; empty after a
  // thinking turn, whose reasoning the next prompt drops.
  std::vector<int32_t> transcript_;
};

}  // namespace hearth::cli
