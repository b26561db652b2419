// `hearth profile`: what this machine has and how fast that is, for the planner and for people.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/profile_text.h"
#include "cli/profiler.h"
#include "offload/machine/machine_json.h"

namespace hearth::cli {
namespace {

struct ProfileOptions {
  ProfilerOptions profiler;
  std::string out;
  bool json = false;
};

void profile(const ProfileOptions& options) {
  if (!options.out.empty()) check_writable(options.out);
  const auto [machine, notes] = measure_this_machine(options.profiler);
  const std::string text = write_machine(machine);
  parse_machine(text, "the measured profile");  // what others would refuse is no result
  for (const std::string& note : notes) fmt::print(stderr, "{}\n", note);
  if (!options.out.empty()) write_file(options.out, text);
  fmt::print("{}", options.json ? text : profile_text(machine));
}

}  // namespace

void add_profile(CLI::App& app) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command = app.add_subcommand(
      "profile", "Measure this machine: memory, cores, the GPU and a disk; within a minute");
  command->add_flag("--quick", options->profiler.quick,
                    "Fewer and shorter measurements; within 10 s");
  command
      ->add_option("--disk", options->profiler.disk,
                   "Also measure the disk of this folder, with a scratch file of at most 2 GiB")
      ->check(not_empty);
  command->add_option("--out", options->out, "Write the profile, a JSON file, there");
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command
      ->add_option("--threads", options->profiler.threads,
                   "Compute threads; 0: one a physical core")
      ->capture_default_str();
  command->callback([options] { profile(*options); });
}

}  // namespace hearth::cli
