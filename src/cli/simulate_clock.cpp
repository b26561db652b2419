#include "cli/simulate_clock.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/units.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "cli/routing_report.h"
#include "offload/sim/cache_curves.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;

// All that was simulated on one plan.
struct ClockRuns {
  struct Run {
    NamedPolicy policy;
    ClockResult result;
  };
  std::vector<Run> runs;
  size_t chosen = 0;                         // the policy asked for
  std::optional<ClockResult> without_guess;  // the same without prefetch, where there is some

  const Run& main() const { return runs[chosen]; }
};

ClockSettings settings_of(const ClockOptions& options) {
  ClockSettings settings = options.settings;
  settings.warm_up = options.warm_up / 100;
  settings.stall_seconds = options.stall_ms * 1e-3;
  return settings;
}

Plan fitting_plan(const PlanCase& planned) {
  Plan plan = make_plan(planned.machine, planned.shape, planned.request);
  Problems problems(fmt::format("{} on {}", planned.shape.name, planned.machine.name));
  for (const std::string& problem : plan.problems) problems.add(problem);
  problems.throw_if_any("Simulate what fits");
  return plan;
}

Residency residency_of(const NamedPolicy& policy, const RoutingWork& work,
                       const Accesses& accesses) {
  if (!policy.fixed) return {[policy, &accesses] { return make_policy(policy, accesses); }, {}};
  if (policy == kPopular) return {{}, work.popularity};
  if (policy == kPlanned) return {};
  const std::vector<int64_t> uses = count_uses(accesses);
  return {{}, {uses.begin(), uses.end()}};
}

ClockRuns run_all(const PlanCase& planned, const Plan& plan, const RoutingWork& work,
                  const ClockOptions& options) {
  const CpuRates cpu(planned.machine, plan.isa, plan.threads);
  const CostModel costs(planned.machine, planned.shape, cpu,
                        planned_gpu(planned.machine, planned.request), planned.request.hit_curve());
  const Accesses accesses = accesses_of(work.trace);
  const ClockSettings settings = settings_of(options);
  const auto run = [&](const NamedPolicy& policy, const ClockSettings& how) {
    return simulate_decode(planned.machine, planned.shape, plan, costs, accesses,
                           residency_of(policy, work, accesses), how);
  };
  const std::vector<NamedPolicy> policies = policies_for(work);
  ClockRuns all;
  ProgressBar bar("Simulating");
  bool found = false;
  for (const NamedPolicy& policy : policies) {
    if (policy.name == options.policy) all.chosen = all.runs.size(), found = true;
    all.runs.push_back({policy, run(policy, settings)});
    bar.show(std::ssize(all.runs), std::ssize(policies));
  }
  if (!found) {
    throw usage_error(
        options.policy == kPlanned.name
            ? "needs a recorded trace that the plan goes by (--trace)"
            : "needs the popularity over all text, which a recorded trace doesn't tell",
        "--policy " + options.policy, "Choose another policy");
  }
  if (settings.prefetch > 0) {
    ClockSettings without = settings;
    without.prefetch = 0;
    all.without_guess = run(all.main().policy, without);
  }
  return all;
}

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }
double share(int64_t part, int64_t whole) {
  return share(static_cast<double>(part), static_cast<double>(whole));
}
double waiting(const ClockResult& result) {
  return result.cost.seconds[static_cast<int>(Resource::kDisk)];
}

Json result_json(const ClockRuns::Run& run, const Plan& plan) {
  const ClockResult& r = run.result;
  const auto tokens = static_cast<double>(r.tokens);
  Json resources;
  for (int i = 0; i < kResources; ++i) {
    resources[resource_name(static_cast<Resource>(i))] = share(r.cost.seconds[i], r.seconds);
  }
  return {{"name", run.policy.name},
          {"explanation", run.policy.explanation},
          {"decode_tok_s", r.tok_s()},
          {"of_predicted", r.tok_s() / plan.predict.decode_tok_s},
          {"hit_rate",
           {{"vram", share(r.vram_hits, r.uses)},
            {"ram", share(r.ram_hits, r.uses)},
            {"memory", share(r.vram_hits + r.ram_hits, r.uses)}}},
          {"late_hit_rate", share(r.late_hits, r.uses)},
          {"disk_bytes_per_token", r.disk_bytes / tokens},
          {"disk_gb_s", r.disk_gb_s()},
          {"disk_share_of_profile", share(r.disk_gb_s(), r.disk_profile_gb_s)},
          {"disk_busy_share", share(r.disk_busy, r.seconds)},
          {"disk_wait_ms_per_token", 1e3 * waiting(r) / tokens},
          {"disk_wait_share", share(waiting(r), r.seconds)},
          {"exchanged_bytes_per_token", r.exchanged_bytes / tokens},
          {"resources", resources},
          {"result_hash", format_hash(r.hash())}};
}

Json prefetch_json(const ClockRuns& runs, const ClockOptions& options) {
  const ClockResult& r = runs.main().result;
  const double before = runs.without_guess->tok_s();
  return {{"precision", options.settings.prefetch},
          {"guesses", r.guesses},
          {"right", r.right_guesses},
          {"wasted_bytes_per_token", r.wasted_bytes / static_cast<double>(r.tokens)},
          {"decode_tok_s_without", before},
          {"gain", r.tok_s() / before - 1},
          {"pays", r.tok_s() > before}};
}

Json report(const PlanCase& planned, const Plan& plan, const RoutingWork& work,
            const ClockRuns& runs, const ClockOptions& options) {
  const Prediction& predict = plan.predict;
  Json policies = Json::array();
  for (const ClockRuns::Run& run : runs.runs) policies.push_back(result_json(run, plan));
  Json result = {{"model", planned.shape.name},
                 {"machine", planned.machine.name},
                 {"workload", work.name},
                 {"depth", plan.work.depth},
                 {"planned_from_tokens", work.known.tokens()},
                 {"tokens", work.trace.tokens()},
                 {"measured_tokens", runs.main().result.tokens},
                 {"plan_hash", format_hash(plan.hash())},
                 {"experts",
                  {{"vram", plan.placement.vram_experts},
                   {"ram", plan.placement.ram_experts},
                   {"nvme", plan.placement.nvme_experts}}},
                 {"predict",
                  {{"decode_tok_s", predict.decode_tok_s},
                   {"decode_tok_s_low", predict.decode_tok_s_low},
                   {"decode_tok_s_high", predict.decode_tok_s_high},
                   {"vram_hit_rate", predict.vram_hit_rate},
                   {"memory_hit_rate", predict.memory_hit_rate}}},
                 {"disk_profile_gb_s", runs.main().result.disk_profile_gb_s},
                 {"stall_ms", options.stall_ms},
                 {"policy", policies[runs.chosen]},
                 {"policies", policies},
                 {"trace_hash", work.hash},
                 {"result_hash", format_hash(runs.main().result.hash())}};
  if (runs.without_guess) result["prefetch"] = prefetch_json(runs, options);
  return result;
}

std::string rate(double tok_s) {
  return fmt::format("{:.{}f}", tok_s, tok_s < 10 ? 2 : tok_s < 100 ? 1 : 0);
}

void print_hits(const ClockRuns::Run& run, const Plan& plan) {
  const ClockResult& r = run.result;
  fmt::print("  hits       ");
  if (plan.placement.uses_gpu()) {
    fmt::print("{} in VRAM (predicted {}), ", format_share(share(r.vram_hits, r.uses)),
               format_share(plan.predict.vram_hit_rate));
  }
  fmt::print("{} in memory (predicted {})\n", format_share(share(r.vram_hits + r.ram_hits, r.uses)),
             format_share(plan.predict.memory_hit_rate));
  if (r.exchanged_bytes == 0 && r.late_hits == 0) return;
  fmt::print("  link       {} a token moved into VRAM; {} of the uses came before their copy\n",
             format_bytes(r.exchanged_bytes / static_cast<double>(r.tokens)),
             format_share(share(r.late_hits, r.uses)));
}

void print_disk(const ClockResult& r) {
  if (r.disk_bytes == 0) {
    fmt::print("  disk       nothing is read\n");
    return;
  }
  const auto tokens = static_cast<double>(r.tokens);
  fmt::print(
      "  disk       {} a token at {:.2f} GB/s ({} of the profile's {:.2f}), in use {} of the time\n"
      "  waiting    {:.2f} ms a token for the disk, {} of the time\n",
      format_bytes(r.disk_bytes / tokens), r.disk_gb_s(),
      format_share(share(r.disk_gb_s(), r.disk_profile_gb_s)), r.disk_profile_gb_s,
      format_share(share(r.disk_busy, r.seconds)), 1e3 * waiting(r) / tokens,
      format_share(share(waiting(r), r.seconds)));
}

void print_prefetch(const ClockRuns& runs) {
  const ClockResult& r = runs.main().result;
  const double before = runs.without_guess->tok_s(), gain = r.tok_s() / before - 1;
  fmt::print(
      "  prefetch   {}: {} tok/s without it ({:+.1f} %); {} of {} guesses right, {} a token read "
      "for nothing\n",
      gain > 0 ? "pays" : "does not pay", rate(before), 100 * gain,
      format_share(share(r.right_guesses, r.guesses)), r.guesses,
      format_bytes(r.wasted_bytes / static_cast<double>(r.tokens)));
}

void print_table(const ClockRuns& runs, const Plan& plan) {
  fmt::print("\n{:<9}{:>8}{:>14}{:>9}{:>9}{:>11}{:>14}\n", "", "tok/s", "of predicted", "VRAM",
             "memory", "disk/token", "disk waited");
  for (const auto& [policy, r] : runs.runs) {
    fmt::print("{:<9}{:>8}{:>14}{:>9}{:>9}{:>11}{:>14}   {}\n", policy.name, rate(r.tok_s()),
               format_share(r.tok_s() / plan.predict.decode_tok_s),
               format_share(share(r.vram_hits, r.uses)),
               format_share(share(r.vram_hits + r.ram_hits, r.uses)),
               format_bytes(r.disk_bytes / static_cast<double>(r.tokens)),
               format_share(share(waiting(r), r.seconds)), policy.explanation);
  }
}

void print_text(const PlanCase& planned, const Plan& plan, const RoutingWork& work,
                const ClockRuns& runs) {
  const ClockRuns::Run& main = runs.main();
  const Prediction& predict = plan.predict;
  fmt::print("{} on {}\n{}: ", planned.shape.name, planned.machine.name, work.name);
  if (work.known.tokens() > 0) {
    fmt::print("without its first {}, which the plan goes by;\n",
               counted(work.known.tokens(), "token"));
  }
  fmt::print("{}, {} of them measured, at {} of context\n\n", counted(work.trace.tokens(), "token"),
             main.result.tokens, counted(plan.work.depth, "token"));
  fmt::print("  simulated  {} tok/s with the policy {}\n", rate(main.result.tok_s()),
             main.policy.name);
  fmt::print("  predicted  {} tok/s ({} to {}); simulated is {:.2f} of it\n",
             rate(predict.decode_tok_s), rate(predict.decode_tok_s_low),
             rate(predict.decode_tok_s_high), main.result.tok_s() / predict.decode_tok_s);
  print_hits(main, plan);
  print_disk(main.result);
  if (runs.without_guess) print_prefetch(runs);
  const Cost& cost = main.result.cost;
  fmt::print("  spends     ");
  const char* separator = "";
  for (int i = 0; i < kResources; ++i) {
    const double part = share(cost.seconds[i], cost.total());
    if (part < 0.005) continue;
    fmt::print("{}{:.0f} % {}", separator, 100 * part, resource_name(static_cast<Resource>(i)));
    separator = ", ";
  }
  fmt::print("\n");
  print_table(runs, plan);
  fmt::print("\nplan {}, trace hash {}, result hash {}\n", format_hash(plan.hash()), work.hash,
             format_hash(main.result.hash()));
}

}  // namespace

void check_clock_options(const ClockOptions& options) {
  const auto check = [](double value, double below, const char* name) {
    if (value >= 0 && value < below) return;  // false for what is not a number
    throw usage_error(fmt::format("can't be {}", value), name,
                      fmt::format("Give 0 or more, below {}", below));
  };
  constexpr double kMinute = 60000;
  check(options.warm_up, 100, "--warm-up");
  check(options.stall_ms, kMinute, "--stall");
  const double prefetch = options.settings.prefetch;
  if (prefetch >= 0 && prefetch <= 1) return;
  throw usage_error(fmt::format("can't be {}", prefetch), "--prefetch", "Give 0 to 1");
}

void simulate_clock(const PlanCase& planned, const RoutingWork& work, const ClockOptions& options,
                    bool json) {
  const Plan plan = fitting_plan(planned);
  const ClockRuns runs = run_all(planned, plan, work, options);
  if (json) {
    const Json result = report(planned, plan, work, runs, options);
    fmt::print("{}\n", result.dump(1, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(planned, plan, work, runs);
  }
}

}  // namespace hearth::cli
