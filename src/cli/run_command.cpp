// `hearth run`: one answer, or a chat.
#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/conversation.h"
#include "cli/interactive.h"

namespace hearth::cli {
namespace {

struct RunOptions {
  ModelOptions model;
  std::string prompt;
  std::string prompt_file;
  std::string system;
  bool has_prompt = false;
  bool raw = false;
  bool json = false;
  bool no_history = false;
  std::string think = "off";
  AnswerOptions answer;
};

uint64_t hash_of(const std::vector<int32_t>& tokens) {
  ResultHash hash;
  hash.add(std::span<const int32_t>(tokens));
  return hash.value();
}

void print_json(const Answer& answer) {
  const Generated& figures = answer.figures;
  nlohmann::ordered_json result = {{"text", answer.text},
                                         {"reasoning", answer.reasoning},
                                         {"tokens", figures.tokens.size()},
                                         {"prompt_tokens", figures.prompt_tokens},
                                         {"stop_reason", answer.stop_reason},
                                         {"prefill_tok_s", prefill_tok_s(figures)},
                                         {"decode_tok_s", decode_tok_s(figures)},
                                         {"result_hash", format_hash(hash_of(figures.tokens))}};
  const CacheStats& cache = figures.decode_cache;
  if (cache.uses > 0) {
    result["expert_hit_rate"] = cache.hit_rate();
    result["disk_bytes"] = cache.reads.bytes;
    result["disk_gb_s"] = cache.disk_gb_s();
    result["disk_wait_seconds"] = cache.reads.wait_seconds;
  }
  fmt::print("{}\n", result.dump(1));
}

Answer answer_once(Engine& engine, const RunOptions& options, const std::string& text,
                   const AnswerSink& sink) {
  const InterruptGuard interrupt;
  if (!options.raw) {
    Conversation conversation(engine);
    conversation.restart(options.system);
    return conversation.ask(text, kThinkModes.at(options.think), options.answer, interrupt, sink);
  }
  std::vector<int32_t> prompt = {engine.tokenizer().bos()};
  const std::vector<int32_t> ids = engine.tokenizer().encode(text, Specials::kMatch);
  prompt.insert(prompt.end(), ids.begin(), ids.end());
  const auto session = engine.new_session();
  return answer_raw(engine, *session, prompt, options.answer, interrupt, sink);
}

void run_once(Engine& engine, const RunOptions& options, const std::string& text) {
  const Answer answer =
      answer_once(engine, options, text, options.json ? AnswerSink() : printing_sink());
  if (options.json) {
    print_json(answer);
    return;
  }
  fmt::print("\n");
  std::fflush(stdout);
  fmt::print(stderr, "[{}, {}, hash {}]\n", describe_speed(answer.figures), answer.stop_reason,
             format_hash(hash_of(answer.figures.tokens)));
}

void run(const RunOptions& options) {
  options.answer.generate.sampling.check();
  const bool interactive =
      !options.has_prompt && options.prompt_file.empty() && isatty(STDIN_FILENO) == 1;
  if (interactive && (options.raw || options.json)) {
    throw usage_error("there is no prompt", "run", "--raw and --json need -p TEXT or -f FILE");
  }
  std::string text = options.prompt;
  if (!interactive && !options.has_prompt) {
    text = read_file(options.prompt_file.empty() ? "-" : options.prompt_file);
  }
  const auto engine = open_engine(options.model);
  if (interactive) {
    run_interactive(*engine, {options.system, kThinkModes.at(options.think), options.answer,
                              !options.no_history});
  } else {
    run_once(*engine, options, text);
  }
}

void add_sampling_options(CLI::App& command, AnswerOptions& answer) {
  SamplingOptions& sampling = answer.generate.sampling;
  command
      .add_option("-n,--tokens", answer.generate.max_tokens,
                  "Tokens to write at most; negative: until the context is full")
      ->capture_default_str();
  command.add_option("--temp", sampling.temperature, "Temperature; 0: always the likeliest token")
      ->capture_default_str();
  command
      .add_option("--top-p", sampling.top_p, "Keep the likeliest tokens that together reach this")
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "Keep this many of the likeliest; 0: all")
      ->capture_default_str();
  command
      .add_option("--min-p", sampling.min_p,
                  "Keep tokens at least this likely, relative to the likeliest")
      ->capture_default_str();
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Makes tokens of the answer less likely; 1: off")
      ->capture_default_str();
  command
      .add_option("--presence-penalty", sampling.presence_penalty,
                  "Taken once off a token of the answer")
      ->capture_default_str();
  command
      .add_option("--frequency-penalty", sampling.frequency_penalty,
                  "Taken off for each time it stands there")
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "Same seed, same answer")->capture_default_str();
  command
      .add_option("--stop", answer.stop_strings,
                  "End the answer before this text; may be given again")
      ->expected(1)
      ->take_all();
}

}  // namespace

void add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Answer a prompt, or chat");
  add_model_options(*command, options->model);
  add_context_option(*command, options->model.context);
  auto* file = command->add_option("-f,--file", options->prompt_file,
                                   "Read the prompt from a file; - is standard input");
  command
      ->add_option("-p,--prompt", options->prompt, "The prompt; a chat begins where there is none")
      ->excludes(file);
  command->add_option("--system", options->system, "System message");
  command->add_flag("--raw", options->raw, "Continue the prompt as it is, without the chat format");
  command->add_option("--think", options->think, "How long the model thinks first")
      ->check(CLI::IsMember({"off", "on", "max"}))
      ->capture_default_str();
  add_sampling_options(*command, options->answer);
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->add_flag("--no-history", options->no_history, "Keep no history of what was typed");
  command->callback([options, command] {
    options->has_prompt = command->count("-p") > 0;
    run(*options);
  });
}

}  // namespace hearth::cli
