#include "cli/answer.h"

#include <fmt/format.h>

#include "base/error.h"
#include "cli/progress.h"
#include "text/chat_parser.h"
#include "text/stop_matcher.h"
#include "text/utf8.h"

namespace hearth::cli {
namespace {

void emit(const std::function<void(const std::string&)>& sink, std::string& collected,
          const std::string& part) {
  if (part.empty()) return;
  collected += part;
  if (sink) sink(part);
}

// Runs the generation; `take` gets each token and says whether to go on.
Generated generate_answer(Engine& engine, Session& session, const std::vector<int32_t>& prompt,
                          const AnswerOptions& options, const InterruptGuard& interrupt,
                          const std::function<bool(int32_t)>& take) {
  ProgressBar bar("Reading the prompt");
  GenerateOptions generate_options = options.generate;
  generate_options.end_tokens = {engine.tokenizer().eos()};
  generate_options.on_prompt = [&](int64_t done, int64_t total) {
    bar.show(done, total);
    if (done == total) bar.clear();
    return !interrupt.requested();
  };
  generate_options.on_token = [&](int32_t token) { return take(token) && !interrupt.requested(); };
  return generate(engine, session, prompt, generate_options);
}

std::string name_stop_reason(const Generated& figures, const InterruptGuard& interrupt) {
  if (interrupt.requested()) return "interrupted";
  return figures.stop_reason == StopReason::kLength ? "length" : "stop";
}

double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

}  // namespace

const ChatTokens& chat_tokens(const Engine& engine) {
  const ChatSupport& chat = engine.chat();
  if (!chat.tokens) throw Error("this model cannot chat: " + chat.why_not, "run", "Use --raw");
  return *chat.tokens;
}

ChatOptions chat_options(const Engine& engine, ThinkMode think) {
  ChatOptions options;
  options.profile = engine.chat_profile();
  options.thinking = think != ThinkMode::kOff;
  if (think != ThinkMode::kOff) {
    options.effort =
        find_thinking(think == ThinkMode::kMax ? "max" : "high", options.profile)->effort;
  }
  return options;
}

Answer answer_chat(Engine& engine, Session& session, const std::vector<int32_t>& prompt,
                   bool in_reasoning, const AnswerOptions& options, const InterruptGuard& interrupt,
                   const AnswerSink& sink) {
  Answer answer;
  ChatParser parser(engine.tokenizer(), chat_tokens(engine), in_reasoning, options.stop_strings);
  const auto take = [&](const ChatDelta& delta) {
    emit(sink.reasoning, answer.reasoning, delta.reasoning);
    emit(sink.text, answer.text, delta.content);
  };
  answer.figures = generate_answer(engine, session, prompt, options, interrupt, [&](int32_t token) {
    take(parser.feed(token));
    return !parser.has_ended();
  });
  take(parser.finish());
  answer.stop_reason = name_stop_reason(answer.figures, interrupt);
  return answer;
}

Answer answer_raw(Engine& engine, Session& session, const std::vector<int32_t>& prompt,
                  const AnswerOptions& options, const InterruptGuard& interrupt,
                  const AnswerSink& sink) {
  Answer answer;
  Utf8Stream utf8;
  StopMatcher stops(options.stop_strings);
  answer.figures = generate_answer(engine, session, prompt, options, interrupt, [&](int32_t token) {
    emit(sink.text, answer.text, stops.feed(utf8.feed(engine.tokenizer().token_bytes(token))));
    return stops.matched() == nullptr;
  });
  emit(sink.text, answer.text, stops.feed(utf8.finish()));
  emit(sink.text, answer.text, stops.finish());
  answer.stop_reason = name_stop_reason(answer.figures, interrupt);
  return answer;
}

double prefill_tok_s(const Generated& figures) {
  return rate(figures.prefill_tokens, figures.prefill_seconds);
}

double decode_tok_s(const Generated& figures) {
  return rate(figures.decode_steps, figures.decode_seconds);
}

std::string describe_speed(const Generated& figures) {
  const double gb_s = rate(figures.decode_bytes, figures.decode_seconds) * 1e-9;
  std::string text =
      fmt::format("{} tokens read at {:.1f} tok/s, {} written at {:.1f} tok/s ({:.2f} GB/s)",
                  figures.prefill_tokens, prefill_tok_s(figures), figures.tokens.size(),
                  decode_tok_s(figures), gb_s);
  const CacheStats& cache = figures.decode_cache;
  if (cache.uses > 0) {
    text += fmt::format("; {:.1f} % of experts at hand, {:.2f} GB/s from disk",
                        100 * cache.hit_rate(), cache.disk_gb_s());
  }
  return text;
}

}  // namespace hearth::cli
