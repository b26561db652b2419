// `hearth simulate`: what caches of experts would serve, policy by policy, on a recorded or a drawn
// routing trace.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/chart.h"
#include "base/error.h"
#include "base/hash.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "cli/routing_report.h"
#include "format/gguf.h"
#include "model/config.h"
#include "model/synth.h"
#include "offload/sim/cache_curves.h"
#include "offload/sim/routing_generator.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;

struct SimulateOptions {
  std::string model;
  std::string trace;
  std::string svg;
  std::vector<double> held = {12, 25, 50};  // percent
  int64_t tokens = 2000;
  int64_t block = 1;
  uint64_t seed = 1;
  bool json = false;
};

// What is simulated, and in words where it comes from.
struct Workload {
  std::string name;
  RoutingTrace trace;
  std::vector<double> popularity;  // over all text, where it is known
};

struct Policy {
  const char* name;
  const char* explanation;
  bool fixed;  // a list that never changes, else a cache
};
constexpr Policy kPopular = {"popular", "a fixed list, the most used over all text", true};
constexpr Policy kStatic = {"static", "a fixed list, the most used of this very text", true};
constexpr Policy kLfu = {"lfu", "gives up the least often used; old uses fade", false};
constexpr Policy kLru = {"lru", "gives up the least recently used", false};
constexpr Policy kHearth = {"hearth", "gives up the one expected back last", false};
constexpr Policy kOptimal = {"optimal", "gives up the one really back last (Belady)", false};

RoutingModel routing_of(const std::string& model, std::string& name) {
  if (model == "flash" || model == "pro") {
    const SynthShape shape = model == "flash" ? flash_shape() : pro_shape();
    name = shape.name;
    return routing_like_flash(shape.layers, shape.experts, shape.experts_used);
  }
  const std::filesystem::path path = model_path(model);
  const ModelConfig config = read_config(open_gguf(path), path.string());
  name = path.filename().string();
  RoutingModel routing = routing_like_flash(config.layers, config.experts, config.experts_used);
  routing.hash_layers = config.hash_layers;
  return routing;
}

Workload recorded(const SimulateOptions& options) {
  const std::string name = std::filesystem::path(options.trace).filename().string();
  Workload work = {name, read_trace(options.trace), {}};
  if (work.trace.tokens() == 0)
    throw Error("holds no tokens", options.trace, "Record a longer text");
  if (options.model.empty()) return work;
  std::string model_name;
  const RoutingModel model = routing_of(options.model, model_name);
  const RoutingTrace& trace = work.trace;
  if (model.layers != trace.layers || model.experts != trace.experts || model.used != trace.used) {
    throw Error(
        fmt::format("has {} layers of {} experts, {} used; {} has {} of {}, {} used", trace.layers,
                    trace.experts, trace.used, model_name, model.layers, model.experts, model.used),
        options.trace, "Name the model it was recorded from, or none");
  }
  return work;
}

Workload drawn(const SimulateOptions& options) {
  Workload work;
  RoutingGenerator generator(routing_of(options.model, work.name), options.seed);
  work.name += fmt::format(", drawn with seed {}", options.seed);
  work.trace = generator.generate(std::span(&options.tokens, 1));
  work.popularity = generator.popularity();
  return work;
}

// Hit rates by policy and share held. A cache holds one step's experts at least.
class Simulation {
 public:
  Simulation(const Workload& work, int64_t block)
      : accesses_(accesses_of(work.trace, block)),
        shape_{accesses_.layers, accesses_.experts},
        lru_(lru_curve(accesses_)),
        static_(static_curve(accesses_, count_uses(accesses_))) {
    policies_ = {kStatic, kLfu, kLru, kHearth, kOptimal};
    if (work.popularity.empty()) return;
    popular_ = static_curve(accesses_, work.popularity);
    policies_.insert(policies_.begin(), kPopular);
  }

  const Accesses& accesses() const { return accesses_; }
  const std::vector<Policy>& policies() const { return policies_; }
  int64_t slots(double share) const {
    return std::max<int64_t>(slots_of_share(accesses_, share), accesses_.step_keys_max);
  }
  double rate(const Policy& policy, double share) const {
    const std::string_view name = policy.name;
    const int64_t n = slots(share);
    if (name == kPopular.name) return hit_rate(accesses_, popular_[n]);
    if (name == kStatic.name) return hit_rate(accesses_, static_[n]);
    if (name == kLru.name) return hit_rate(accesses_, lru_[n]);
    const auto cache = name == kLfu.name      ? make_lfu_policy(shape_)
                       : name == kHearth.name ? make_reuse_policy(shape_)
                                              : make_optimal_policy(shape_, accesses_.keys);
    return hit_rate(accesses_, count_hits(accesses_, *cache, n));
  }

 private:
  const Accesses accesses_;
  const CacheShape shape_;
  const HitCounts lru_, static_;
  HitCounts popular_;
  std::vector<Policy> policies_;
};

Json report(const Workload& work, const Simulation& simulation, const SimulateOptions& options) {
  Json held = Json::array(), policies = Json::array();
  for (const double percent : options.held) {
    held.push_back({{"share", percent / 100}, {"slots", simulation.slots(percent / 100)}});
  }
  std::vector<double> best;
  for (const double percent : options.held)
    best.push_back(simulation.rate(kOptimal, percent / 100));
  for (const Policy& policy : simulation.policies()) {
    std::vector<double> rates, gaps;
    for (size_t i = 0; i < options.held.size(); ++i) {
      const bool optimal = policy.name == std::string_view(kOptimal.name);
      rates.push_back(optimal ? best[i] : simulation.rate(policy, options.held[i] / 100));
      gaps.push_back(best[i] - rates[i]);
    }
    policies.push_back({{"name", policy.name},
                        {"explanation", policy.explanation},
                        {"hit_rate", rates},
                        {"below_optimal", gaps}});
  }
  ResultHash hash;
  hash.add(std::span<const uint16_t>(work.trace.picks));
  return {{"workload", work.name},
          {"layers", work.trace.layers},
          {"experts", work.trace.experts},
          {"used", work.trace.used},
          {"tokens", work.trace.tokens()},
          {"block_tokens", options.block},
          {"uses", simulation.accesses().keys.size()},
          {"held", held},
          {"policies", policies},
          {"trace_hash", format_hash(hash.value())}};
}

void print_text(const Json& result) {
  fmt::print("{}: {} tokens in {} layers of {} experts, {} used\n\n",
             result["workload"].get<std::string>(), result["tokens"].get<int64_t>(),
             result["layers"].get<int>(), result["experts"].get<int>(), result["used"].get<int>());
  fmt::print("{:<9}", "held");
  for (const Json& held : result["held"]) {
    fmt::print(" {:>16}", format_share(held["share"].get<double>()));
  }
  fmt::print("\n{:<9}", "slots");
  for (const Json& held : result["held"]) fmt::print(" {:>16}", held["slots"].get<int64_t>());
  fmt::print("\n\n");
  for (const Json& policy : result["policies"]) {
    fmt::print("{:<9}", policy["name"].get<std::string>());
    for (size_t i = 0; i < policy["hit_rate"].size(); ++i) {
      const double gap = policy["below_optimal"][i].get<double>();
      fmt::print(" {:>16}",
                 fmt::format("{} {:>7}", format_share(policy["hit_rate"][i].get<double>()),
                             gap == 0 ? "" : fmt::format("({:+.1f})", -100 * gap)));
    }
    fmt::print("   {}\n", policy["explanation"].get<std::string>());
  }
  fmt::print(
      "\nHit rates, and in points how far from the optimum, which knows the future. Caches start\n"
      "empty, fixed lists are loaded beforehand.\ntrace hash {}\n",
      result["trace_hash"].get<std::string>());
}

std::string curves_svg(const Workload& work, const Simulation& simulation) {
  constexpr double kWidth = 860, kHeight = 600;
  const std::string title =
      fmt::format("Experts served by a cache: {}, {} tokens", work.name, work.trace.tokens());
  std::vector<double> shares = {0.01, 0.02, 0.03, 0.05, 0.07};
  for (int percent = 10; percent <= 100; percent += 5) shares.push_back(percent / 100.0);
  Chart chart = {title, {"experts held", 0, 100, " %"}, {"uses served", 0, 100, " %"}};
  ProgressBar bar("Simulating");
  for (const Policy& policy : simulation.policies()) {
    ChartCurve curve = {.name = policy.name, .dash = policy.fixed ? "6 4" : ""};
    for (const double share : shares) {
      if (slots_of_share(simulation.accesses(), share) < simulation.slots(share)) continue;
      curve.points.push_back({100 * share, 100 * simulation.rate(policy, share)});
    }
    chart.curves.push_back(curve);
    bar.show(std::ssize(chart.curves), std::ssize(simulation.policies()));
  }
  Svg svg(kWidth, kHeight, title);
  draw_chart(svg, chart, {0, 10, kWidth, kHeight - 10});
  return svg.finish();
}

void simulate(const SimulateOptions& options) {
  for (const double percent : options.held) {
    if (percent >= 0 && percent <= 100) continue;  // false for what is not a number
    throw usage_error(fmt::format("{} percent of the experts can't be held", percent), "--held",
                      "Give 0 to 100");
  }
  if (!options.svg.empty()) check_writable(options.svg);
  const Workload work = options.trace.empty() ? drawn(options) : recorded(options);
  const Simulation simulation(work, options.block);
  const Json result = report(work, simulation, options);
  if (!options.svg.empty()) write_file(options.svg, curves_svg(work, simulation));
  if (options.json) {
    fmt::print("{}\n", result.dump(1, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(result);
  }
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App* command =
      app.add_subcommand("simulate", "What caches of experts would serve, by policy and size");
  command->add_option("MODEL", options->model,
                      "flash, pro or a GGUF file; the small demo model where absent");
  command->add_option("--trace", options->trace,
                      "Routing recorded by hearth trace; drawn at random where absent");
  command->add_option("--held", options->held, "Percent of all experts that the cache holds")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--tokens", options->tokens, "Tokens to draw")
      ->check(CLI::Range(1, 200000))
      ->capture_default_str();
  command->add_option("--block", options->block, "Tokens that go through a layer together")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Same seed, same draw")->capture_default_str();
  command->add_option("--svg", options->svg, "Draw the curves into this file");
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { simulate(*options); });
}

}  // namespace hearth::cli
