// A prompt to an answer: feed what the session doesn't hold yet, then sample token after token.
#pragma once

#include <functional>

#include "engine/engine.h"
#include "engine/sampler.h"

namespace hearth {

enum class StopReason {
  kEnd,     // an end token was sampled
  kLength,  // the token limit or the context is reached
  kCaller,  // a callback said stop
};

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = -1;          // negative: until the context is full
  std::vector<int32_t> end_tokens;  // sampling one ends the answer; it isn't part of it
  // Called often while the prompt is read, with tokens done and in all; false stops.
  std::function<bool(int64_t, int64_t)> on_prompt;
  // Called with each token of the answer; false stops.
  std::function<bool(int32_t)> on_token;
};

struct Generated {
  std::vector<int32_t> tokens;
  StopReason stop_reason = StopReason::kEnd;
  int64_t prompt_tokens = 0;   // in all
  int64_t prefill_tokens = 0;  // of those, fed now; the rest the session held already
  double prefill_seconds = 0;
  int64_t decode_steps = 0;  // forward passes of one token
  double decode_seconds = 0;
  int64_t decode_bytes = 0;  // weights and cache rows read in them
  CacheStats decode_cache;   // of them, where experts come through a cache
};

// Where the session's tokens are a beginning of `prompt`, only the rest is fed, else the session
// starts anew. The answer's last token and an end token are not fed: the next prompt, which
// contains them, feeds them. Throws Error for a prompt that is empty or does not fit the context.
Generated generate(Engine& engine, Session& session, std::span<const int32_t> prompt,
                   const GenerateOptions& options);

}  // namespace hearth
