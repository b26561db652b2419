// `hearth trace`: records which experts a model chooses on a text, and says what that means for
// caches of experts.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "cli/routing_report.h"
#include "offload/sim/routing_trace.h"

namespace hearth::cli {
namespace {

struct TraceOptions {
  ModelOptions model;
  std::string file;
  std::string out;
  std::string svg;
  int32_t chunk = 0;
  bool json = false;
};

// Files the picks of each step under the tokens that made them.
class Recorder : public ForwardObserver {
 public:
  explicit Recorder(const ModelConfig& config) {
    trace_.layers = config.layers;
    trace_.experts = config.experts;
    trace_.used = config.experts_used;
    if (!is_trace_shape(trace_.layers, trace_.experts, trace_.used)) {
      throw Error(fmt::format("{} layers of {} experts, {} used, are more than a trace holds",
                              trace_.layers, trace_.experts, trace_.used),
                  config.name, "Use another model");
    }
  }

  void begin_sequence() { trace_.sequences.push_back(0); }
  void begin_step(int64_t tokens) {
    first_ = trace_.tokens();
    trace_.sequences.back() += tokens;
    trace_.picks.resize(trace_.tokens() * trace_.layers * trace_.used);
  }
  const RoutingTrace& trace() const { return trace_; }

  void streams(int32_t, const float*, int64_t, int64_t) override {}
  void picks(int32_t layer, const int32_t* picks, int64_t n) override {
    HEARTH_CHECK(first_ + n == trace_.tokens());
    for (int64_t row = 0; row < n; ++row) {
      uint16_t* to = trace_.picks.data() + ((first_ + row) * trace_.layers + layer) * trace_.used;
      for (int32_t i = 0; i < trace_.used; ++i) {
        to[i] = static_cast<uint16_t>(picks[row * trace_.used + i]);
      }
    }
  }

 private:
  RoutingTrace trace_;
  int64_t first_ = 0;  // of the step's tokens
};

// The text in windows that fill the context, each begun with BOS and each a sequence of its own.
RoutingTrace record(Engine& engine, const std::vector<int32_t>& ids) {
  Recorder recorder(engine.config());
  const auto session = engine.new_session();
  const std::span<const int32_t> text = ids;
  ProgressBar bar("Recording");
  for (size_t begin = 0; begin < text.size();) {
    const size_t length = std::min<size_t>(engine.context() - 1, text.size() - begin);
    std::vector<int32_t> window = {engine.tokenizer().bos()};
    window.insert(window.end(), ids.begin() + begin, ids.begin() + begin + length);
    session->clear();
    recorder.begin_sequence();
    for (size_t at = 0; at < window.size();) {
      const size_t n = std::min<size_t>(engine.chunk_tokens(), window.size() - at);
      const Feed feed{session.get(), std::span(window).subspan(at, n)};
      recorder.begin_step(static_cast<int64_t>(n));
      engine.step({&feed, 1}, LogitRows::kNone, &recorder);
      at += n;
      bar.show(static_cast<int64_t>(begin + at), std::ssize(text));
    }
    begin += length;
  }
  return recorder.trace();
}

void trace_text(const TraceOptions& options) {
  check_writable(options.out);
  if (!options.svg.empty()) check_writable(options.svg);
  const std::string text = read_file(options.file);
  Limits limits;
  if (options.chunk > 0) limits.chunk_tokens = options.chunk;
  const auto engine = open_engine(options.model, limits);
  if (engine->context() < 2) {
    throw usage_error("a context of 1 token has no room behind the token that begins a text",
                      "--ctx", "Choose 2 or more");
  }
  const std::vector<int32_t> ids = engine->tokenizer().encode(text, Specials::kAsText);
  if (ids.empty()) throw Error("holds no text", options.file, "Give a text to run the model on");

  const RoutingTrace trace = record(*engine, ids);
  write_trace(trace, options.out);
  const RoutingStats stats =
      routing_stats(accesses_of(trace), curve_shares(), {1, 2, 4, 8, 16, 32, 64, 128, 256, 512});
  const std::string title =
      fmt::format("{} in {} of {} experts, {} used", counted(trace.tokens(), "token"),
                  counted(trace.layers, "layer"), trace.experts, trace.used);
  if (!options.svg.empty()) write_file(options.svg, stats_svg(stats, "Routing of " + title));
  ResultHash hash;
  hash.add(std::span<const uint16_t>(trace.picks));
  if (options.json) {
    nlohmann::ordered_json result = {{"file", options.out},
                                     {"layers", trace.layers},
                                     {"experts", trace.experts},
                                     {"used", trace.used},
                                     {"tokens", trace.tokens()},
                                     {"sequences", trace.sequences},
                                     {"result_hash", format_hash(hash.value())}};
    result.update(stats_json(stats));
    fmt::print("{}\n", result.dump(1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    print_stats(stats, {0.12, 0.25, 0.5});
    fmt::print("\n{}: {} in {} {}, hash {}\n", options.out, title, trace.sequences.size(),
               trace.sequences.size() == 1 ? "sequence" : "sequences", format_hash(hash.value()));
  }
}

}  // namespace

void add_trace(CLI::App& app) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* command = app.add_subcommand(
      "trace", "Record which experts a model chooses; what caches of experts would serve");
  add_model_options(*command, options->model);
  add_context_option(*command, options->model.context);
  command->add_option("-f,--file", options->file, "Text file; - is standard input")->required();
  command->add_option("--out", options->out, "Where the trace goes")->required();
  command->add_option("--svg", options->svg, "Draw the curves into this file");
  command->add_option("--chunk", options->chunk, "Feed the text in chunks of this many tokens")
      ->check(CLI::Range(1, 65536));
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { trace_text(*options); });
}

}  // namespace hearth::cli
