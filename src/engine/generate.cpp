#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace hearth {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The part of the prompt the session doesn't hold yet; at least one token, whose logits start the
// answer.
std::span<const int32_t> rest_of_prompt(Session& session, std::span<const int32_t> prompt) {
  const std::vector<int32_t>& held = session.tokens();
  const bool is_beginning =
      held.size() < prompt.size() && std::equal(held.begin(), held.end(), prompt.begin());
  if (!is_beginning) session.clear();
  return prompt.subspan(session.tokens().size());
}

bool contains(const std::vector<int32_t>& tokens, int32_t token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

}  // namespace

Generated generate(Engine& engine, Session& session, std::span<const int32_t> prompt,
                   const GenerateOptions& options) {
  if (prompt.empty()) throw Error("the prompt is empty", "prompt", "Give it some text");
  options.sampling.check();
  Sampler sampler(options.sampling, engine.kernels());
  Generated result;
  result.prompt_tokens = std::ssize(prompt);

  const std::span<const int32_t> rest = rest_of_prompt(session, prompt);
  Clock::time_point start = Clock::now();
  LogitRow* logits = session.feed_to_row(rest, options.on_prompt);
  result.prefill_seconds = seconds_since(start);
  result.prefill_tokens = std::ssize(rest);
  result.stop_reason = logits == nullptr ? StopReason::kCaller : StopReason::kLength;

  start = Clock::now();
  engine.clear_figures();
  bool wanted = logits != nullptr && options.max_tokens != 0;
  while (wanted) {
    const int32_t token = sampler.sample(*logits, result.tokens);
    if (contains(options.end_tokens, token)) {
      result.stop_reason = StopReason::kEnd;
      break;
    }
    result.tokens.push_back(token);
    if (options.on_token && !options.on_token(token)) {
      result.stop_reason = StopReason::kCaller;
      break;
    }
    wanted = std::ssize(result.tokens) != options.max_tokens &&
             std::ssize(session.tokens()) < session.context();
    if (!wanted) break;
    logits = session.feed_to_row({&token, 1});
    ++result.decode_steps;
  }
  result.decode_seconds = seconds_since(start);
  result.decode_bytes = engine.clock().bytes();
  if (const ExpertCache* cache = engine.cache()) result.decode_cache = cache->stats();
  return result;
}

}  // namespace hearth
