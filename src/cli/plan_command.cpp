// `hearth plan`: where everything goes and how fast it will be, before a byte is loaded, on this
// machine or on one that is only described.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/plan_options.h"
#include "cli/plan_report.h"
#include "offload/plan/plan_json.h"
#include "offload/plan/plan_svg.h"

namespace hearth::cli {
namespace {

struct PlanCommand {
  PlanOptions asked;
  std::string svg;
  bool json = false;
};

void run_plan(const PlanCommand& options) {
  if (!options.svg.empty()) check_writable(options.svg);
  const PlanCase asked = plan_case(options.asked);
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
  command
      ->add_option("MODEL", asked.model,
                   "GGUF file, or flash or pro as released; the demo model where absent")
      ->check(not_empty);
  command
      ->add_option("--machine", asked.machine,
                   "Profile of a machine (hearth profile); this one, measured now, where absent")
      ->check(not_empty);
  add_plan_options(*command, asked);
  command->add_option("--parallel", asked.request.work.parallel, "Sessions at once")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--trace", asked.trace,
                      "Routing recorded on a text (hearth trace): which experts are in memory at "
                      "first, and how often they are hit");
  command->add_option("--svg", options->svg, "Write a picture of the placement there");
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { run_plan(*options); });
}

}  // namespace hearth::cli
