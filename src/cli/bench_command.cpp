// `hearth bench`: prefill and decode speed, and each stage beside what the machine can do at best.
//
// Tokens are drawn from a seeded uniform distribution, not sampled: a loop of the model's own
// making would show the caches a locality that real text hasn't.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/hash.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "engine/peaks.h"
#include "engine/sampler.h"
#include "offload/io/disk_probe.h"
#include "offload/machine/memory.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct BenchOptions {
  ModelOptions model;
  int64_t prefill = 512;
  int64_t decode = 32;
  int64_t depth = 0;
  int repeats = 3;
  std::vector<int> batches;
  bool json = false;
};

// One phase of one repetition.
struct Timing {
  double seconds = 0;
  StageClock stages;
  CacheStats cache;              // where experts come through one
  std::vector<LayerUse> layers;  // of the cache
};

struct Repetition {
  Timing prefill, decode;
  Peaks peaks;  // measured before and after
  double disk_peak_gb_s = 0;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t bytes_of(const StageClock& clock) {
  int64_t bytes = 0;
  for (int s = 0; s < kStages; ++s) bytes += clock[static_cast<Stage>(s)].bytes;
  return bytes;
}

class Bench {
 public:
  Bench(Engine& engine, const BenchOptions& options)
      : engine_(engine),
        options_(options),
        tokens_(options.depth + options.prefill + options.decode) {}

  Repetition repeat() {
    draw_tokens();
    const auto session = engine_.new_session();
    const std::span<const int32_t> tokens = tokens_;
    if (options_.depth > 0) session->feed(tokens.first(options_.depth));
    Repetition result;
    result.prefill = time([&] {
      if (options_.prefill > 0)
        add_to_hash(session->feed(tokens.subspan(options_.depth, options_.prefill)));
    });
    result.decode = time([&] {
      for (int64_t i = 0; i < options_.decode; ++i) {
        const auto logits = session->feed(tokens.subspan(options_.depth + options_.prefill + i, 1));
        add_to_hash(logits);
        const StageTimer timer(engine_.clock()[Stage::kSampling]);
        sampler_.sample(logits, {});
      }
    });
    return result;
  }

  // `batch` sequences decode their tokens together, each `depth` tokens old, and one more where
  // there is a prompt.
  Timing decode_batch(int batch) {
    draw_tokens();
    std::vector<std::unique_ptr<Session>> sessions;
    const std::span<const int32_t> tokens = tokens_;
    for (int b = 0; b < batch; ++b) {
      sessions.push_back(engine_.new_session());
      const int64_t old = options_.depth + std::min<int64_t>(options_.prefill, 1);
      if (old > 0) sessions.back()->feed(tokens.first(old));
    }
    std::vector<Feed> feeds(batch);
    return time([&] {
      for (int64_t i = 0; i < options_.decode; ++i) {
        for (int b = 0; b < batch; ++b) {
          // Each sequence reads the tokens from a place of its own.
          const int64_t at = (i + b * options_.decode / batch) % options_.decode;
          feeds[b] = {sessions[b].get(), tokens.subspan(options_.depth + options_.prefill + at, 1)};
        }
        engine_.step(feeds, LogitRows::kLast);
      }
    });
  }

  uint64_t hash() const { return hash_.value(); }

 private:
  template <typename F>
  Timing time(F&& run) {
    engine_.clear_figures();
    const auto start = Clock::now();
    run();
    const double seconds = seconds_since(start);
    Timing timing{seconds, engine_.clock(), {}, {}};
    if (const ExpertCache* cache = engine_.cache()) {
      timing.cache = cache->stats();
      timing.layers.assign(cache->layer_uses().begin(), cache->layer_uses().end());
    }
    return timing;
  }

  // Others each time: a cache must not know them.
  void draw_tokens() {
    const auto vocab = static_cast<uint64_t>(engine_.config().vocab);
    for (int32_t& token : tokens_) token = static_cast<int32_t>(random_() % vocab);
  }

  void add_to_hash(std::span<const float> logits) { hash_.add(logits); }

  Engine& engine_;
  const BenchOptions& options_;
  std::mt19937_64 random_{1};
  std::vector<int32_t> tokens_;
  Sampler sampler_{SamplingOptions{}, engine_.kernels()};
  ResultHash hash_;
};

// The stages of one phase, of the repetition with the median time. A stage is held against the
// bandwidth where reading its bytes would take longer than its arithmetic, else against the matrix
// units.
void add_stages(Json& stages, const std::string& phase, const Timing& timing, const Peaks& peaks) {
  for (int s = 0; s < kStages; ++s) {
    const StageTotals& totals = timing.stages[static_cast<Stage>(s)];
    if (totals.seconds == 0) continue;
    Json stage = {{"phase", phase},
                  {"name", stage_name(static_cast<Stage>(s))},
                  {"ms", totals.seconds * 1e3},
                  {"share_of_time", totals.seconds / timing.seconds}};
    const bool is_routed = static_cast<Stage>(s) == Stage::kRoutedExperts;
    const double read_gb_s = is_routed ? peaks.experts_gb_s : peaks.dense_gb_s;
    const double gb_s = static_cast<double>(totals.bytes) / totals.seconds * 1e-9;
    const double gflop_s = static_cast<double>(totals.flops) / totals.seconds * 1e-9;
    if (gb_s / read_gb_s >= gflop_s / peaks.matmul_gflop_s) {
      stage["gb_s"] = gb_s;
      stage["share_of_peak"] = gb_s / read_gb_s;
    } else {
      stage["gflop_s"] = gflop_s;
      stage["share_of_peak"] = gflop_s / peaks.matmul_gflop_s;
    }
    stages.push_back(stage);
  }
}

// The repetition with the median time of a phase; of an even number the slower one in the middle.
const Repetition& median_of(const std::vector<Repetition>& repetitions, Timing Repetition::*phase) {
  std::vector<const Repetition*> order;
  for (const Repetition& repetition : repetitions) order.push_back(&repetition);
  std::ranges::sort(order, {}, [&](const Repetition* r) { return (r->*phase).seconds; });
  return *order[order.size() / 2];
}

// Of random reads of the model's file; 0 where none are made.
double disk_peak_gb_s(const Engine& engine) {
  if (engine.cache() == nullptr) return 0;
  return probe_file(largest_file(engine.tensors())).read_gb_s;
}

Json hit_rates(const std::vector<LayerUse>& layers) {
  Json rates = Json::array();
  for (const LayerUse& layer : layers) {
    rates.push_back(
        layer.uses > 0 ? static_cast<double>(layer.hits) / static_cast<double>(layer.uses) : 1);
  }
  return rates;
}

Json guess_precisions(const Engine& engine) {
  Json shares = Json::array();
  if (engine.cache() == nullptr) return shares;
  for (int32_t layer = 0; layer < engine.config().layers; ++layer) {
    shares.push_back(engine.guess_precision(layer));
  }
  return shares;
}

Json report(Engine& engine, const BenchOptions& options) {
  PeakProbe probe(engine);
  Peaks before = probe.measure();
  double disk_before = disk_peak_gb_s(engine);
  Bench bench(engine, options);
  ProgressBar bar("Measuring");
  std::vector<Repetition> repetitions;
  for (int r = 0; r < options.repeats; ++r) {
    repetitions.push_back(bench.repeat());
    const Peaks after = probe.measure();
    repetitions.back().peaks = max(before, after);
    before = after;
    const double disk_after = disk_peak_gb_s(engine);
    repetitions.back().disk_peak_gb_s = std::max(disk_before, disk_after);
    disk_before = disk_after;
    bar.show(r + 1, options.repeats);
  }
  const Repetition& decode = median_of(repetitions, &Repetition::decode);
  const Repetition& prefill = median_of(repetitions, &Repetition::prefill);
  const CacheStats& cache = decode.decode.cache;
  const double steps = static_cast<double>(std::max<int64_t>(options.decode, 1));
  const double bytes_per_token = static_cast<double>(bytes_of(decode.decode.stages)) / steps;
  const double decode_tok_s = static_cast<double>(options.decode) / decode.decode.seconds;

  Json batches = Json::array(), batch_stages = Json::array();
  for (const int batch : options.batches) {
    std::vector<Timing> timings;
    for (int r = 0; r < options.repeats; ++r) timings.push_back(bench.decode_batch(batch));
    std::ranges::sort(timings, {}, &Timing::seconds);
    const Timing& middle = timings[timings.size() / 2];
    batches.push_back(
        {{"batch", batch},
         {"decode_tok_s", static_cast<double>(options.decode * batch) / middle.seconds}});
    add_stages(batch_stages, fmt::format("{} at once", batch), middle, decode.peaks);
  }
  Json stages = Json::array();
  add_stages(stages, "prefill", prefill.prefill, prefill.peaks);
  add_stages(stages, "decode", decode.decode, decode.peaks);
  stages.insert(stages.end(), batch_stages.begin(), batch_stages.end());
  return {{"plan", format_hash(engine.plan().hash())},
          {"planned_bytes", engine.plan().total_bytes()},
          {"isa", engine.kernels().name},
          {"threads", engine.workers().threads()},
          {"prefill_tokens", options.prefill},
          {"prefill_tok_s", static_cast<double>(options.prefill) / prefill.prefill.seconds},
          {"decode_tokens", options.decode},
          {"decode_tok_s", decode_tok_s},
          {"depth", options.depth},
          {"decode_bytes_per_token", bytes_per_token},
          {"decode_gb_s", bytes_per_token * decode_tok_s * 1e-9},
          {"read_peak_gb_s", decode.peaks.read_gb_s},
          {"read_peak_dense_gb_s", decode.peaks.dense_gb_s},
          {"read_peak_experts_gb_s", decode.peaks.experts_gb_s},
          {"matmul_peak_gflop_s", prefill.peaks.matmul_gflop_s},
          {"disk_bytes_per_token", static_cast<double>(cache.reads.bytes) / steps},
          {"disk_gb_s", cache.disk_gb_s()},
          {"disk_peak_gb_s", decode.disk_peak_gb_s},
          {"disk_wait_share", cache.reads.wait_seconds / decode.decode.seconds},
          {"expert_hit_rate", cache.hit_rate()},
          {"expert_hit_rate_by_layer", hit_rates(decode.decode.layers)},
          {"guess_precision_by_layer", guess_precisions(engine)},
          {"foreseen_rate", cache.foreseen_rate()},
          {"prefill_disk_bytes", prefill.prefill.cache.reads.bytes},
          {"prefill_disk_gb_s", prefill.prefill.cache.disk_gb_s()},
          {"peak_rss_bytes", peak_resident_bytes()},
          {"result_hash", format_hash(bench.hash())},
          {"batches", batches},
          {"stages", stages}};
}

void print_text(const Json& result) {
  fmt::print("prefill  {:>6} tokens  {:>9.2f} tok/s\n", result["prefill_tokens"].get<int64_t>(),
             result["prefill_tok_s"].get<double>());
  fmt::print("decode   {:>6} tokens  {:>9.2f} tok/s  {} a token, {:.2f} GB/s of {:.2f} GB/s\n",
             result["decode_tokens"].get<int64_t>(), result["decode_tok_s"].get<double>(),
             format_bytes(result["decode_bytes_per_token"].get<double>()),
             result["decode_gb_s"].get<double>(), result["read_peak_gb_s"].get<double>());
  for (const Json& batch : result["batches"]) {
    fmt::print("decode   {:>6} at once {:>9.2f} tok/s\n", batch["batch"].get<int>(),
               batch["decode_tok_s"].get<double>());
  }
  if (result["disk_bytes_per_token"].get<double>() > 0) {
    fmt::print(
        "experts  {:>5.1f} % at hand, {:.1f} % foreseen; disk {} a token at {:.2f} GB/s "
        "of {:.2f} GB/s, {:.1f} % of the time waiting for it\n",
        100 * result["expert_hit_rate"].get<double>(), 100 * result["foreseen_rate"].get<double>(),
        format_bytes(result["disk_bytes_per_token"].get<double>()),
        result["disk_gb_s"].get<double>(), result["disk_peak_gb_s"].get<double>(),
        100 * result["disk_wait_share"].get<double>());
  }
  fmt::print("\n{:<9} {:<22} {:>10} {:>7} {:>18} {:>8}\n", "phase", "stage", "ms", "share", "rate",
             "of peak");
  for (const Json& stage : result["stages"]) {
    const bool bytes = stage.contains("gb_s");
    const std::string rate = bytes ? fmt::format("{:.2f} GB/s", stage["gb_s"].get<double>())
                                   : fmt::format("{:.1f} GFLOP/s", stage["gflop_s"].get<double>());
    fmt::print("{:<9} {:<22} {:>10.2f} {:>6.1f}% {:>18} {:>7.1f}%\n",
               stage["phase"].get<std::string>(), stage["name"].get<std::string>(),
               stage["ms"].get<double>(), 100 * stage["share_of_time"].get<double>(), rate,
               100 * stage["share_of_peak"].get<double>());
  }
  fmt::print(
      "\npeaks: {:.2f} GB/s read ({:.2f} dense weights, {:.2f} experts), {:.0f} GFLOP/s "
      "matrix; peak memory {}; hash {}\n",
      result["read_peak_gb_s"].get<double>(), result["read_peak_dense_gb_s"].get<double>(),
      result["read_peak_experts_gb_s"].get<double>(), result["matmul_peak_gflop_s"].get<double>(),
      format_bytes(result["peak_rss_bytes"].get<double>()),
      result["result_hash"].get<std::string>());
}

void run_bench(BenchOptions options) {
  const int64_t tokens = options.depth + options.prefill + options.decode;
  options.model.context = tokens;
  for (const int batch : options.batches) {
    options.model.sessions = std::max(options.model.sessions, batch);
  }
  const auto engine = open_engine(options.model);
  for (const int batch : options.batches) {
    if (batch < 1 || batch > engine->logit_rows()) {
      throw usage_error(fmt::format("{} sequences at once are not possible", batch), "--batch",
                        fmt::format("Choose 1 to {}", engine->logit_rows()));
    }
  }
  const Json result = report(*engine, options);
  if (options.json) {
    fmt::print("{}\n", result.dump(1));
  } else {
    print_text(result);
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Prefill and decode speed, stage by stage");
  add_model_options(*command, options->model);
  const auto tokens = CLI::Range(int64_t{0}, int64_t{1} << 30);
  command->add_option("-p,--prefill", options->prefill, "Tokens to prefill")
      ->check(tokens)
      ->capture_default_str();
  command->add_option("-n,--decode", options->decode, "Tokens to decode")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_option("-d,--depth", options->depth, "Tokens of context before both")
      ->check(tokens)
      ->capture_default_str();
  command->add_option("-r,--repeats", options->repeats, "Repetitions; medians are reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--batch", options->batches, "Also decode this many sequences at once: 1,2,4")
      ->delimiter(',');
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { run_bench(*options); });
}

}  // namespace hearth::cli
