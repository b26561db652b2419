#include "cli/conversation.h"

namespace hearth::cli {

Conversation::Conversation(Engine& engine) : engine_(engine), session_(engine.new_session()) {}

void Conversation::restart(const std::string& system) {
  system_ = system;
  messages_.clear();
  transcript_.clear();
  if (!system.empty()) messages_.push_back({.role = Role::kSystem, .content = system});
}

// The prompt for the last message. In chat mode the tokens the model itself wrote stand in front,
// so that nothing of them is read again however their text would be cut into tokens now.
std::vector<int32_t> Conversation::encode(const std::vector<Message>& messages,
                                          const ChatOptions& options, bool& in_reasoning) const {
  const ChatTokens& tokens = chat_tokens(engine_);
  const bool grows = !transcript_.empty() && !options.thinking;
  const Prompt prompt = grows ? encode_messages(tokens, {messages.back()}, options,
                                                {messages.begin(), messages.end() - 1})
                              : encode_conversation(tokens, messages, options);
  in_reasoning = opens_reasoning(prompt, tokens);
  std::vector<int32_t> ids = grows ? transcript_ : std::vector<int32_t>();
  const std::vector<int32_t> added = to_ids(prompt, engine_.tokenizer());
  ids.insert(ids.end(), added.begin(), added.end());
  return ids;
}

Answer Conversation::ask(const std::string& text, ThinkMode think, const AnswerOptions& options,
                         const InterruptGuard& interrupt, const AnswerSink& sink) {
  std::vector<Message> messages = messages_;
  messages.push_back({.role = Role::kUser, .content = text});
  const ChatOptions chat = chat_options(engine_, think);
  bool in_reasoning = false;
  std::vector<int32_t> prompt = encode(messages, chat, in_reasoning);
  Answer answer = answer_chat(engine_, *session_, prompt, in_reasoning, options, interrupt, sink);
  if (answer.figures.tokens.empty() && answer.stop_reason == "interrupted") return answer;

  messages_ = std::move(messages);
  messages_.push_back(
      {.role = Role::kAssistant, .content = answer.text, .reasoning = answer.reasoning});
  transcript_.clear();
  if (!chat.thinking) {
    transcript_ = std::move(prompt);
    transcript_.insert(transcript_.end(), answer.figures.tokens.begin(),
                       answer.figures.tokens.end());
    transcript_.push_back(engine_.tokenizer().eos());
  }
  return answer;
}

}  // namespace hearth::cli
