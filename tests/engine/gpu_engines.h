// Engines with a GPU, the fake one, beside one on the CPU.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "base/error.h"
#include "engine/engine.h"
#include "support.h"

namespace hearth::test {

constexpr int64_t kGpuMemory = int64_t{1} << 30;

inline EngineOptions demo_options() {
  EngineOptions options;
  options.model = models("demo.gguf");
  options.limits = limits();
  options.limits.logit_rows = std::max(options.limits.logit_rows, 8);
  options.chunk_tokens = 8;
  options.context = 24;
  options.threads = 1;
  options.isa = "avx2";  // rounds activations as the GPU's kernels do
  return options;
}

inline std::unique_ptr<Engine> open_on_cpu(EngineOptions options) {
  options.use_gpu = false;
  return Engine::open(options);
}

// A prompt, tokens after it, of two sessions in turn and then together; a step like the one before
// is replayed.
inline void expect_sessions_alike(Engine& engine, Engine& cpu) {
  const std::vector<int32_t> ids = read_ids(data("demo/demo.tokens.txt"));
  const std::span<const int32_t> tokens = ids;
  std::vector<std::unique_ptr<Session>> sessions, others;
  const auto both = [&](const std::vector<int64_t>& counts) {
    std::vector<Feed> feeds, other_feeds;
    for (size_t s = 0; s < counts.size(); ++s) {
      const auto next = tokens.subspan(sessions[s]->tokens().size(), counts[s]);
      feeds.push_back({sessions[s].get(), next});
      other_feeds.push_back({others[s].get(), next});
    }
    const auto own = engine.step(feeds, LogitRows::kLast);
    const auto expected = cpu.step(other_feeds, LogitRows::kLast);
    CHECK(max_difference({own.begin(), own.end()}, {expected.begin(), expected.end()}) < 1e-2);
  };
  for (int s = 0; s < 2; ++s) {
    sessions.push_back(engine.new_session());
    others.push_back(cpu.new_session());
  }
  both({4});
  both({1, 3});
  for (int i = 0; i < 3; ++i) both({1, 1});
}

}  // namespace hearth::test
