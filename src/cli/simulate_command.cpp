// `hearth simulate`: what caches of experts would serve, policy by policy, on a recorded or a drawn
// routing trace; with a machine's profile, how fast it would decode (simulate_clock.cpp).
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/chart.h"
#include "base/error.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "cli/routing_report.h"
#include "cli/routing_work.h"
#include "cli/simulate_clock.h"
#include "offload/sim/cache_curves.h"
#include "offload/sim/trace_use.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;

struct SimulateOptions {
  std::string trace;
  std::string svg;
  std::string held_text = "12,25,50";
  std::vector<double> held;  // percent, of the text
  int64_t tokens = 2000;
  int64_t block = 1;
  ClockOptions clock;  // model and seed are those of both
  bool json = false;
};

// Hit rates by policy and share held. A cache holds one step's experts at least.
class Simulation {
 public:
  Simulation(const RoutingWork& work, int64_t block)
      : accesses_(accesses_of(work.trace, block)),
        lru_(lru_curve(accesses_)),
        static_(static_curve(accesses_, count_uses(accesses_))) {
    policies_ = policies_for(work);
    if (!work.popularity.empty()) popular_ = static_curve(accesses_, work.popularity);
  }

  const Accesses& accesses() const { return accesses_; }
  const std::vector<NamedPolicy>& policies() const { return policies_; }
  int64_t slots(double share) const {
    return std::max<int64_t>(slots_of_share(accesses_, share), accesses_.step_keys_max);
  }
  double rate(const NamedPolicy& policy, double share) const {
    const int64_t n = slots(share);
    if (policy == kPopular) return hit_rate(accesses_, popular_[n]);
    if (policy == kStatic) return hit_rate(accesses_, static_[n]);
    if (policy == kLru) return hit_rate(accesses_, lru_[n]);
    const auto cache = make_policy(policy, accesses_);
    return hit_rate(accesses_, count_hits(accesses_, *cache, n));
  }

 private:
  const Accesses accesses_;
  const HitCounts lru_, static_;
  HitCounts popular_;
  std::vector<NamedPolicy> policies_;
};

Json report(const RoutingWork& work, const Simulation& simulation, const SimulateOptions& options) {
  Json held = Json::array(), policies = Json::array();
  for (const double percent : options.held) {
    held.push_back({{"share", percent / 100}, {"slots", simulation.slots(percent / 100)}});
  }
  std::vector<double> best;
  for (const double percent : options.held)
    best.push_back(simulation.rate(kOptimal, percent / 100));
  for (const NamedPolicy& policy : simulation.policies()) {
    std::vector<double> rates, gaps;
    for (size_t i = 0; i < options.held.size(); ++i) {
      const bool optimal = policy == kOptimal;
      rates.push_back(optimal ? best[i] : simulation.rate(policy, options.held[i] / 100));
      gaps.push_back(best[i] - rates[i]);
    }
    policies.push_back({{"name", policy.name},
                        {"explanation", policy.explanation},
                        {"hit_rate", rates},
                        {"below_optimal", gaps}});
  }
  return {{"workload", work.name},
          {"layers", work.trace.layers},
          {"experts", work.trace.experts},
          {"used", work.trace.used},
          {"tokens", work.trace.tokens()},
          {"block_tokens", options.block},
          {"uses", simulation.accesses().keys.size()},
          {"held", held},
          {"policies", policies},
          {"trace_hash", work.hash}};
}

void print_text(const Json& result) {
  fmt::print("{}: {} in {} of {} experts, {} used\n\n", result["workload"].get<std::string>(),
             counted(result["tokens"].get<int64_t>(), "token"),
             counted(result["layers"].get<int>(), "layer"), result["experts"].get<int>(),
             result["used"].get<int>());
  fmt::print("{:<9}", "held");
  for (const Json& held : result["held"]) {
    fmt::print(" {:>17}", format_share(held["share"].get<double>()));
  }
  fmt::print("\n{:<9}", "slots");
  for (const Json& held : result["held"]) fmt::print(" {:>17}", held["slots"].get<int64_t>());
  fmt::print("\n\n");
  for (const Json& policy : result["policies"]) {
    fmt::print("{:<9}", policy["name"].get<std::string>());
    for (size_t i = 0; i < policy["hit_rate"].size(); ++i) {
      const double gap = policy["below_optimal"][i].get<double>();
      fmt::print(" {:>17}",
                 fmt::format("{} {:>8}", format_share(policy["hit_rate"][i].get<double>()),
                             gap == 0 ? "" : fmt::format("({:+.1f})", -100 * gap)));
    }
    fmt::print("   {}\n", policy["explanation"].get<std::string>());
  }
  fmt::print(
      "\nHit rates, and in points how far from the optimum, which knows the future. Caches start\n"
      "empty, fixed lists are loaded beforehand.\ntrace hash {}\n",
      result["trace_hash"].get<std::string>());
}

std::string curves_svg(const RoutingWork& work, const Simulation& simulation) {
  constexpr double kWidth = 860, kHeight = 600;
  const std::string title = fmt::format("Experts served by a cache: {}, {}", work.name,
                                        counted(work.trace.tokens(), "token"));
  std::vector<double> shares = {0.01, 0.02, 0.03, 0.05, 0.07};
  for (int percent = 10; percent <= 100; percent += 5) shares.push_back(percent / 100.0);
  Chart chart = {title, {"experts held", 0, 100, " %"}, {"uses served", 0, 100, " %"}};
  ProgressBar bar("Simulating");
  for (const NamedPolicy& policy : simulation.policies()) {
    ChartCurve curve = {.name = std::string(policy.name), .dash = policy.fixed ? "6 4" : ""};
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

RoutingSource source_of(const SimulateOptions& options) {
  const PlanOptions& asked = options.clock.asked;
  return {.model = asked.model,
          .trace = options.trace,
          .for_plan = !asked.machine.empty(),
          .random = asked.routing == "random",
          .tokens = options.tokens,
          .seed = options.clock.settings.seed};
}

// Of "12,25,50". Throws a usage Error.
std::vector<double> parse_percents(std::string_view text) {
  std::vector<double> percents;
  while (true) {
    const std::string_view item = text.substr(0, text.find(','));
    double percent = -1;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), percent);
    const bool is_number = error == std::errc() && end == item.data() + item.size();
    if (!is_number || !(percent >= 0 && percent <= 100)) {  // also what is not a number
      throw usage_error(fmt::format("'{}' percent of the experts can't be held", item), "--held",
                        "Give numbers of 0 to 100, as in 12,25,50");
    }
    percents.push_back(percent);
    if (item.size() == text.size()) return percents;
    text.remove_prefix(item.size() + 1);
  }
}

void simulate_caches(const SimulateOptions& options) {
  if (!options.svg.empty()) check_writable(options.svg);
  const RoutingWork work = routing_work(source_of(options));
  const Simulation simulation(work, options.block);
  const Json result = report(work, simulation, options);
  if (!options.svg.empty()) write_file(options.svg, curves_svg(work, simulation));
  if (options.json) {
    fmt::print("{}\n", result.dump(1, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(result);
  }
}

void simulate(const SimulateOptions& options) {
  if (options.clock.asked.machine.empty()) return simulate_caches(options);
  check_clock_options(options.clock);
  PlanCase planned = plan_case(options.clock.asked);
  const RoutingWork work = routing_work(source_of(options));
  if (work.known.tokens() > 0) planned.request.recorded = recorded_use(work.known, work.name);
  simulate_clock(planned, work, options.clock, options.json);
}

// Options of the plan and the clock mean nothing without a machine.
void add_clock_options(CLI::App& command, ClockOptions& options) {
  ClockSettings& settings = options.settings;
  CLI::Option* machine = command.add_option(
      "--machine", options.asked.machine,
      "Profile of a machine (hearth profile): decode on a virtual clock, by a plan made for it");
  machine->check(not_empty);
  const size_t others = command.get_options().size();
  add_plan_options(command, options.asked);
  command.add_option("--policy", options.policy, "Who leaves a full tier, of the detailed figures")
      ->check(CLI::IsMember({"popular", "planned", "static", "lfu", "lru", "hearth", "optimal"}))
      ->capture_default_str();
  command.add_option("--warm-up", options.warm_up, "Percent of the tokens that are not measured")
      ->capture_default_str();
  command
      .add_option("--prefetch", settings.prefetch,
                  "Share of the next layer's experts that are guessed right and read ahead, 0 to 1")
      ->capture_default_str();
  command
      .add_option("--stall", options.stall_ms,
                  "Milliseconds that the disk stands still before some of its reads, one in 200")
      ->capture_default_str();
  const std::vector<CLI::Option*> all = command.get_options();
  for (size_t i = others; i < all.size(); ++i) all[i]->needs(machine);
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto options = std::make_shared<SimulateOptions>();
  CLI::App* command = app.add_subcommand(
      "simulate", "Hit rates of caches of experts; with a machine's profile, how fast it decodes");
  command
      ->add_option("MODEL", options->clock.asked.model,
                   "flash, pro or a GGUF file; the small demo model where absent")
      ->check(not_empty);
  CLI::Option* trace =
      command->add_option("--trace", options->trace,
                          "Routing recorded by hearth trace; drawn at random where absent. A plan "
                          "(--machine) goes by its first half, the second is simulated");
  CLI::Option* tokens = command->add_option("--tokens", options->tokens, "Tokens to draw")
                            ->check(CLI::Range(1, 1000000))
                            ->capture_default_str();
  CLI::Option* seed =
      command->add_option("--seed", options->clock.settings.seed, "Same seed, same draw")
          ->check(whole_number, "COUNT")
          ->capture_default_str();
  command->add_flag("--json", options->json, "One JSON document on standard output");
  CLI::Option* held = command
                          ->add_option("--held", options->held_text,
                                       "Percent of all experts that the cache holds: 12,25,50")
                          ->type_name("PERCENTS")
                          ->capture_default_str();
  CLI::Option* block =
      command->add_option("--block", options->block, "Tokens that go through a layer together")
          ->check(CLI::Range(1, 65536))
          ->capture_default_str();
  CLI::Option* svg = command->add_option("--svg", options->svg, "Draw the curves into this file");
  add_clock_options(*command, options->clock);
  for (CLI::Option* option : {held, block, svg}) option->excludes("--machine");
  tokens->excludes(trace);
  // With a machine it also draws which guesses are right and which reads stand still.
  command->callback([options, trace, seed] {
    if (trace->count() > 0 && seed->count() > 0 && options->clock.asked.machine.empty()) {
      throw usage_error("nothing is drawn along a recorded trace", "--seed", "Leave it out");
    }
    options->held = parse_percents(options->held_text);
    simulate(*options);
  });
}

}  // namespace hearth::cli
