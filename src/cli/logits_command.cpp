// `hearth logits`: token ids in, float32 logits [tokens, vocab] out.
#include <fmt/format.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/hash.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"

namespace hearth::cli {
namespace {

struct LogitsOptions {
  ModelOptions model;
  std::string tokens;
  std::string out;
  int32_t chunk = 0;
};

void write_logits(const LogitsOptions& options) {
  const std::vector<int32_t> tokens = read_token_ids(options.tokens);
  Limits limits;
  ModelOptions model = options.model;
  model.chunk_tokens = options.chunk > 0 ? options.chunk : limits.chunk_tokens;
  limits.logit_rows = model.chunk_tokens;
  model.context = std::ssize(tokens);
  const auto engine = open_engine(model, limits);
  const auto session = engine->new_session();
  for (const int32_t token : tokens) {
    if (token < 0 || token >= engine->config().vocab) {
      throw Error(
          fmt::format("token {} is not in the vocabulary of {}", token, engine->config().vocab),
          options.tokens, "Use ids this model knows");
    }
  }

  std::ofstream out(options.out, std::ios::binary);
  if (!out) throw Error("cannot be written", options.out, "Check the folder and the permissions");
  ResultHash hash;
  ProgressBar bar("Computing");
  const std::span<const int32_t> all = tokens;
  // A plan may have longer chunks than there is room for logits.
  const auto chunk = static_cast<size_t>(std::min(engine->chunk_tokens(), engine->logit_rows()));
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const Feed feed{session.get(), all.subspan(at, std::min(chunk, tokens.size() - at))};
    const std::span<const float> logits = engine->step({&feed, 1}, LogitRows::kAll);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size_bytes()));
    hash.add(logits);
    bar.show(static_cast<int64_t>(at), std::ssize(tokens));
  }
  bar.clear();
  out.close();
  if (!out)
    throw Error("could not be written in full", options.out, "Check the free space of its disk");
  fmt::print("{} x {} logits in {}, hash {}\n", tokens.size(), engine->config().vocab, options.out,
             format_hash(hash.value()));
}

}  // namespace

void add_logits(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();
  CLI::App* command =
      app.add_subcommand("logits", "Logits of given token ids, for comparing engines");
  add_model_options(*command, options->model);
  command
      ->add_option("--tokens", options->tokens,
                   "File of whitespace-separated ids, taken as they are")
      ->required();
  command->add_option("--out", options->out, "Where the float32 values [tokens, vocab] go")
      ->required();
  command->add_option("--chunk", options->chunk, "Feed the tokens in chunks of this many")
      ->check(CLI::Range(1, 65536));
  command->callback([options] { write_logits(*options); });
}

}  // namespace hearth::cli
