// `hearth plan`: where everything goes and how fast it will be, before a byte is loaded, on this
// machine or on one that is only described.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/plan_options.h"
#include "cli/plan_report.h"
#include "offload/plan/plan_json.h"
#include "offload/plan/plan_svg.h"
#include "offload/sim/cache_curves.h"

namespace hearth::cli {
namespace {

struct PlanCommand {
  PlanOptions asked;
  std::string svg;
  std::string trace;
  bool json = false;
};

// What caches would have served of a recorded text: likely is least recently used; a fixed list of
// the text's most used experts, where it serves less or more, bounds it.
HitCurve recorded_hits(const std::string& path, const ModelShape& shape) {
  const RoutingTrace trace = read_trace(path);
  if (trace.layers != std::ssize(shape.layers) || trace.experts != shape.experts) {
    throw Error(fmt::format("is of {} layers of {} experts, the model has {} of {}", trace.layers,
                            trace.experts, shape.layers.size(), shape.experts),
                path, "Record one of this model: hearth trace");
  }
  const Accesses accesses = accesses_of(trace);
  const HitCounts lru = lru_curve(accesses), fixed = static_curve(accesses, count_uses(accesses));
  std::vector<HitPoint> points;
  for (const double held : {0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}) {
    const auto slots = static_cast<size_t>(slots_of_share(accesses, held));
    const double likely = hit_rate(accesses, lru[slots]);
    const double list = hit_rate(accesses, fixed[slots]);
    points.push_back({held, {std::min(likely, list), likely, std::max(likely, list)}});
  }
  return HitCurve(std::move(points));
}

void run_plan(const PlanCommand& options) {
  if (!options.svg.empty()) check_writable(options.svg);
  PlanCase asked = plan_case(options.asked);
  if (!options.trace.empty()) asked.request.hits = recorded_hits(options.trace, asked.shape);
  const auto& [machine, shape, request] = asked;
  Plan plan = make_plan(machine, shape, request);
  plan.upgrades = find_upgrades(machine, shape, request, plan);
  if (!options.svg.empty()) write_file(options.svg, plan_svg(plan));
  fmt::print("{}", options.json ? write_plan(plan) + "\n" : plan_report(plan));
}

}  // namespace

void add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanCommand>();
  PlanOptions& asked = options->asked;
  CLI::App* command =
      app.add_subcommand("plan", "Where everything goes and how fast it will be, before loading");
  command->add_option("MODEL", asked.model,
                      "GGUF file, or flash or pro as released; the demo model where absent");
  command->add_option(
      "--machine", asked.machine,
      "Profile of a machine (hearth profile); this one, measured now, where absent");
  add_plan_options(*command, asked);
  command->add_option("--parallel", asked.request.work.parallel, "Sessions at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--trace", options->trace,
                      "Routing recorded on a text (hearth trace): hit rates of the experts held");
  command->add_option("--svg", options->svg, "Write a picture of the placement there");
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { run_plan(*options); });
}

}  // namespace hearth::cli
