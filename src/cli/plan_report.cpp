#include "cli/plan_report.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "base/units.h"
#include "cli/common.h"

namespace hearth::cli {
namespace {

std::string rate(double tok_s) {
  return fmt::format("{:.{}f}", tok_s, tok_s < 10 ? 2 : tok_s < 100 ? 1 : 0);
}

std::string duration(double seconds) {
  return seconds < 10 ? fmt::format("{:.1f} ms", 1e3 * seconds) : fmt::format("{:.0f} s", seconds);
}

std::string contents(const Plan& plan, const TierPlan& tier, bool is_vram) {
  const int64_t layers = std::ssize(plan.layers);
  const int64_t dense_layers =
      is_vram ? plan.placement.gpu_layers : layers - plan.placement.gpu_layers;
  std::vector<std::string> parts;
  if (dense_layers > 0 && &tier != &plan.nvme) {
    parts.push_back(fmt::format("{} of {} layers but their experts", dense_layers, layers));
  }
  if (tier.experts > 0) parts.push_back(counted(tier.experts, "expert"));
  if (tier.kv > 0) parts.push_back(fmt::format("{} of KV cache", binary_size(tier.kv)));
  const int64_t room = tier.expert_room(), scratch = tier.scratch - room;
  if (room > 0) parts.push_back(fmt::format("{} of room for experts", binary_size(room)));
  if (scratch > 0) parts.push_back(fmt::format("{} of scratch", binary_size(scratch)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

void add_tier(std::string& text, const char* name, const Plan& plan, const TierPlan& tier) {
  if (tier.used == 0) return;
  const std::string budget = &tier == &plan.nvme ? "" : "of " + binary_size(tier.budget);
  text += fmt::format("  {:<5}{:>12} {:<16}  {}\n", name, binary_size(tier.used), budget,
                      contents(plan, tier, &tier == &plan.vram));
}

// Those parts that there are, of both memories.
template <typename Part, size_t N>
void add_parts(std::string& text, const char* title, const std::array<int64_t, N>& vram,
               const std::array<int64_t, N>& ram) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < N; ++i) {
    const int64_t bytes = vram[i] + ram[i];
    if (bytes == 0) continue;
    parts.push_back(fmt::format("{} {}", binary_size(bytes), part_name(static_cast<Part>(i))));
  }
  text += fmt::format("  {:<18}{}\n", title, fmt::join(parts, ", "));
}

// "disk", or "disk and nearly as much by memory bandwidth": more of the first alone helps little.
std::string bound_by(const Cost& cost) {
  const Resource first = cost.bottleneck(), second = cost.runner_up();
  if (cost.busy(second) < 0.8 * cost.busy(first)) return resource_name(first);
  return fmt::format("{} and nearly as much by {}", resource_name(first), resource_name(second));
}

void add_prediction(std::string& text, const Plan& plan) {
  const Prediction& predict = plan.predict;
  const int32_t sessions = plan.work.parallel;
  text += fmt::format("  decode  {:>8} tok/s  {}at {} of context, bound by {}",
                      rate(predict.decode_tok_s),
                      sessions == 1 ? ""
                                    : fmt::format("all {} sessions together, {} each, ", sessions,
                                                  rate(predict.decode_tok_s / sessions)),
                      counted(plan.work.depth, "token"), bound_by(predict.decode));
  if (predict.decode_tok_s_high > predict.decode_tok_s_low) {
    text += fmt::format("; {} to {} with how often the text's experts are at hand",
                        rate(predict.decode_tok_s_low), rate(predict.decode_tok_s_high));
  }
  text += '\n';
  if (plan.work.prompt > 0) {
    text +=
        fmt::format("  prefill {:>8} tok/s  over a prompt of {}{}, bound by {}\n",
                    rate(predict.prefill_tok_s), counted(plan.work.prompt, "token"),
                    sessions == 1 ? "" : " of one session at a time", bound_by(predict.prefill));
  }
}

// Shares of the time by what it is spent on, and on a line of its own what is busy meanwhile.
void add_cost(std::string& text, const char* title, const Cost& cost) {
  const double total = cost.total();
  const auto shares = [&](const std::array<double, kResources>& seconds) {
    std::vector<std::string> parts;
    for (int r = 0; r < kResources; ++r) {
      const double share = total > 0 ? seconds[r] / total : 0;
      if (share < 0.005) continue;
      parts.push_back(
          fmt::format("{:.0f} % {}", 100 * share, resource_name(static_cast<Resource>(r))));
    }
    return fmt::format("{}", fmt::join(parts, ", "));
  };
  text += fmt::format("  {:<18}{}: {}\n", title, duration(total), shares(cost.seconds));
  const std::string beside = shares(cost.beside);
  if (!beside.empty()) text += fmt::format("  {:<18}{}\n", "at the same time", beside);
}

// What a change brings: speeds that it changes by two percent, or those it makes possible.
std::string upgrade_text(const Plan& plan, const Upgrade& upgrade) {
  std::vector<std::string> parts;
  const auto add = [&](const char* what, double before, double after) {
    if (!plan.fits()) {
      if (after > 0) parts.push_back(fmt::format("{} {} tok/s", what, rate(after)));
    } else if (std::abs(after - before) > 0.02 * before) {
      parts.push_back(fmt::format("{} {} -> {} tok/s", what, rate(before), rate(after)));
    }
  };
  add("decode", plan.predict.decode_tok_s, upgrade.decode_tok_s);
  add("prefill", plan.predict.prefill_tok_s, upgrade.prefill_tok_s);
  return fmt::format("{}: {}{}", upgrade.change, plan.fits() ? "" : "fits then, ",
                     fmt::join(parts, ", "));
}

void add_list(std::string& text, const char* title, const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  text += fmt::format("\n{}\n", title);
  for (const std::string& line : lines) text += fmt::format("  - {}\n", line);
}

}  // namespace

std::string plan_report(const Plan& plan) {
  std::string text = fmt::format(
      "{} on {}\n  {} of weights, {} of them routed experts; {} of context, {}; "
      "{} kernels on {}\n\n",
      plan.model, plan.machine, format_bytes(static_cast<double>(plan.weight_bytes)),
      format_bytes(static_cast<double>(plan.routed_bytes)), counted(plan.work.context, "token"),
      counted(plan.work.parallel, "session"), plan.isa, plan.shares().text());
  add_tier(text, "VRAM", plan, plan.vram);
  add_tier(text, "RAM", plan, plan.ram);
  add_tier(text, "NVMe", plan, plan.nvme);
  text += '\n';
  add_parts<KvPart>(text, "KV cache", plan.vram.kv_parts, plan.ram.kv_parts);
  add_parts<ScratchPart>(text, "scratch and room", plan.vram.scratch_parts, plan.ram.scratch_parts);
  if (plan.fits()) {
    text += fmt::format("  {:<18}{} of RAM for code and the tokenizer's tables\n", "beside these",
                        binary_size(plan.program_bytes));
  }
  if (plan.fits()) {
    text += '\n';
    add_prediction(text, plan);
    text += '\n';
    add_cost(text, "decode spends", plan.predict.decode);
    if (plan.work.prompt > 0) add_cost(text, "prefill spends", plan.predict.prefill);
  }
  add_list(text, plan.fits() ? "" : "It does not fit", plan.problems);
  add_list(text, "Why", plan.why);
  std::vector<std::string> changes;
  for (const Upgrade& upgrade : plan.upgrades) changes.push_back(upgrade_text(plan, upgrade));
  add_list(text, "What would help", changes);
  text += fmt::format("\nplan {}\n", format_hash(plan.hash()));
  return text;
}

}  // namespace hearth::cli
