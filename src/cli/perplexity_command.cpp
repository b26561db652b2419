// `hearth perplexity`: how well the model predicts a text, comparable with the llama.cpp family's
// figure.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"

namespace hearth::cli {
namespace {

struct PerplexityOptions {
  ModelOptions model;
  std::string file;
  int32_t window = 512;
  bool json = false;
};

// -log p(target) under softmax(logits).
double surprise(std::span<const float> logits, int32_t target) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - largest);
  return std::log(total) + largest - logits[target];
}

// The sum over the targets window/2+1 .. window-1, each predicted from what precedes it.
double score_window(Engine& engine, Session& session, std::span<const int32_t> window) {
  const int64_t vocab = engine.config().vocab;
  session.clear();
  double sum = 0;
  for (size_t at = 0; at < window.size();) {
    // A plan may have longer chunks than there is room for logits.
    const int32_t chunk = std::min(engine.chunk_tokens(), engine.logit_rows());
    const size_t n = std::min<size_t>(chunk, window.size() - at);
    const Feed feed{&session, window.subspan(at, n)};
    const std::span<const float> logits = engine.step({&feed, 1}, LogitRows::kAll);
    for (size_t i = 0; i < n; ++i) {
      const size_t target = at + i + 1;
      if (target <= window.size() / 2 || target >= window.size()) continue;
      sum += surprise(logits.subspan(i * vocab, vocab), window[target]);
    }
    at += n;
  }
  return sum;
}

void measure(PerplexityOptions options) {
  options.model.context = options.window;
  Limits limits;
  options.model.chunk_tokens = limits.logit_rows = limits.chunk_tokens;
  const auto engine = open_engine(options.model, limits);
  const Tokenizer& tokenizer = engine->tokenizer();
  std::vector<int32_t> ids = tokenizer.encode(read_file(options.file), Specials::kAsText);
  ids.insert(ids.begin(), tokenizer.bos());
  const size_t window = options.window;
  const size_t windows = ids.size() / window;
  if (windows == 0) {
    throw Error(fmt::format("has {} tokens, fewer than one window of {}", ids.size(), window),
                options.file, "Give a longer text or a smaller -c");
  }

  const auto session = engine->new_session();
  ProgressBar bar("Scoring");
  double sum = 0;
  int64_t scored = 0;
  std::vector<double> running;
  for (size_t w = 0; w < windows; ++w) {
    const std::span<int32_t> part(ids.data() + w * window, window);
    part[0] = tokenizer.bos();
    sum += score_window(*engine, *session, part);
    scored += static_cast<int64_t>(window - window / 2 - 1);
    running.push_back(std::exp(sum / static_cast<double>(scored)));
    bar.show(static_cast<int64_t>(w + 1), static_cast<int64_t>(windows));
  }
  bar.clear();
  if (options.json) {
    const nlohmann::ordered_json result = {
        {"perplexity", running.back()}, {"tokens", scored}, {"windows", running}};
    fmt::print("{}\n", result.dump(1));
  } else {
    fmt::print("perplexity {:.5f} over {} tokens in {} windows of {}\n", running.back(), scored,
               windows, window);
  }
}

}  // namespace

void add_perplexity(CLI::App& app) {
  auto options = std::make_shared<PerplexityOptions>();
  CLI::App* command = app.add_subcommand("perplexity", "How well the model predicts a text");
  add_model_options(*command, options->model);
  command->add_option("-f,--file", options->file, "Text file; - is standard input")->required();
  command->add_option("-c,--window", options->window, "Tokens of a window")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { measure(*options); });
}

}  // namespace hearth::cli
