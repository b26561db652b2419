#include "cli/plan_report.h"

#include <fmt/format.h>

#include <vector>

#include "base/units.h"
#include "cli/common.h"

namespace hearth::cli {
namespace {

std::string rate(double tok_s) {
  return fmt::format("{:.{}f}", tok_s, tok_s < 10 ? 2 : tok_s < 100 ? 1 : 0);
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
  if (tier.scratch > 0) parts.push_back(fmt::format("{} of scratch", binary_size(tier.scratch)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

void add_tier(std::string& text, const char* name, const Plan& plan, const TierPlan& tier) {
  if (tier.used == 0) return;
  const std::string budget = &tier == &plan.nvme ? "" : "of " + binary_size(tier.budget);
  text += fmt::format("  {:<5}{:>12} {:<16}  {}\n", name, binary_size(tier.used), budget,
                      contents(plan, tier, &tier == &plan.vram));
}

void add_prediction(std::string& text, const Plan& plan) {
  const Prediction& predict = plan.predict;
  text += fmt::format("  decode  {:>8} tok/s  at {} of context, bound by {}",
                      rate(predict.decode_tok_s), counted(plan.work.depth, "token"),
                      resource_name(predict.decode.bottleneck()));
  if (predict.decode_tok_s_high > predict.decode_tok_s_low) {
    text += fmt::format("; {} to {} with how often the text's experts are at hand",
                        rate(predict.decode_tok_s_low), rate(predict.decode_tok_s_high));
  }
  text += '\n';
  if (plan.work.prompt > 0) {
    text += fmt::format("  prefill {:>8} tok/s  over a prompt of {}, bound by {}\n",
                        rate(predict.prefill_tok_s), counted(plan.work.prompt, "token"),
                        resource_name(predict.prefill.bottleneck()));
  }
}

void add_cost(std::string& text, const char* title, const Cost& cost) {
  text += fmt::format("  {:<18}", title);
  const double total = cost.total();
  const char* separator = "";
  for (int r = 0; r < kResources; ++r) {
    const double share = total > 0 ? cost.seconds[r] / total : 0;
    if (share < 0.005) continue;
    text += fmt::format("{}{:.0f} % {}", separator, 100 * share,
                        resource_name(static_cast<Resource>(r)));
    separator = ", ";
  }
  text += '\n';
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
  for (const Upgrade& upgrade : plan.upgrades) {
    changes.push_back(fmt::format("{}: decode {} -> {} tok/s, prefill {} -> {} tok/s",
                                  upgrade.change, rate(plan.predict.decode_tok_s),
                                  rate(upgrade.decode_tok_s), rate(plan.predict.prefill_tok_s),
                                  rate(upgrade.prefill_tok_s)));
  }
  add_list(text, "What would help", changes);
  text += fmt::format("\nplan {}\n", format_hash(plan.hash()));
  return text;
}

}  // namespace hearth::cli
