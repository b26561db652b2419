// One answer: a prompt's tokens in, text streamed out as it comes, figures at the end.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cli/interrupt.h"
#include "engine/generate.h"
#include "text/chat.h"

namespace hearth::cli {

// How long the model thinks before it answers.
enum class ThinkMode { kOff, kOn, kMax };
// By the names that --think and /think take.
inline const std::map<std::string, ThinkMode> kThinkModes = {
    {"off", ThinkMode::kOff}, {"on", ThinkMode::kOn}, {"max", ThinkMode::kMax}};

struct AnswerOptions {
  GenerateOptions generate;
  std::vector<std::string> stop_strings;
};

struct Answer {
  std::string reasoning;
  std::string text;
  std::string stop_reason;  // "stop", "length" or "interrupted"
  Generated figures;
};

// Where the parts of an answer go as they come.
struct AnswerSink {
  std::function<void(const std::string&)> reasoning;
  std::function<void(const std::string&)> text;
};

// Throws Error where the model has no chat tokens.
ChatOptions chat_options(const Engine& engine, ThinkMode think);
const ChatTokens& chat_tokens(const Engine& engine);

// `in_reasoning`: the prompt ends with an open thinking block.
Answer answer_chat(Engine& engine, Session& session, const std::vector<int32_t>& prompt,
                   bool in_reasoning, const AnswerOptions& options, const InterruptGuard& interrupt,
                   const AnswerSink& sink);
// The prompt continued as it is, special tokens shown as text.
Answer answer_raw(Engine& engine, Session& session, const std::vector<int32_t>& prompt,
                  const AnswerOptions& options, const InterruptGuard& interrupt,
                  const AnswerSink& sink);

double prefill_tok_s(const Generated& figures);
double decode_tok_s(const Generated& figures);
// "12 tokens read at 340.1 tok/s, 56 written at 120.4 tok/s (3.2 GB/s)"
std::string describe_speed(const Generated& figures);

}  // namespace hearth::cli
