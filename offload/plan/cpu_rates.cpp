#include "offload/plan/cpu_rates.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace hearth {
namespace {

const IsaRates& choose_isa(const Machine& machine, const std::string& name) {
  for (const IsaRates& isa : machine.cpu.isas) {
    if ((name.empty() || isa.name == name) && !isa.formats.empty()) return isa;
  }
  throw Error(name.empty() ? "has no rates of any kernels"
                           : fmt::format("has no rates of the {} kernels", name),
              machine.name, "Measure the machine with hearth profile");
}

// Seconds of one weight, which takes `reading` to be read, with `tokens` tokens on this share of
// the cores: linear between the measured counts, and in proportion to the tokens past the last.
double seconds_a_weight(const std::vector<MatmulRate>& rates, double tokens, double reading,
                        double share) {
  const auto seconds = [&](const MatmulRate& rate) {
    const double measured = matmul_flops(1, rate.tokens) / (rate.gflop_s * 1e9);
    if (rate.tokens <= kStreamedTokens) return std::max(measured / share, reading);
    return reading + std::max(measured - reading, 0.0) / share;
  };
  const MatmulRate& first = rates.front();
  const MatmulRate& last = rates.back();
  if (tokens <= first.tokens) return seconds(first);
  if (tokens >= last.tokens) return seconds(last) * tokens / last.tokens;
  const auto after =
      std::ranges::find_if(rates, [&](const MatmulRate& rate) { return rate.tokens >= tokens; });
  const MatmulRate& a = *(after - 1);
  const double way = (tokens - a.tokens) / (after->tokens - a.tokens);
  return seconds(a) + (seconds(*after) - seconds(a)) * way;
}

}  // namespace

CpuRates::CpuRates(const Machine& machine, const std::string& isa, int32_t threads)
    : machine_(machine),
      isa_(choose_isa(machine, isa)),
      threads_(threads),
      share_(std::min(1.0, static_cast<double>(threads) / machine.cpu.cores)) {}

const FormatRates* CpuRates::find_rates(TensorType type, bool interleaved) const {
  const auto known =
      std::ranges::find(isa_.formats, format_name(type, interleaved), &FormatRates::format);
  return known == isa_.formats.end() ? nullptr : &*known;
}

// Where a format has no rates of interleaved rows, those of stored ones stand in; where it has
// none, those of the slowest.
const FormatRates& CpuRates::rates_of(TensorType type, bool interleaved) const {
  const FormatRates* known = interleaved ? find_rates(type, true) : nullptr;
  if (known == nullptr) known = find_rates(type, false);
  if (known != nullptr) return *known;
  return *std::ranges::min_element(
      isa_.formats, {}, [](const FormatRates& rates) { return rates.matmul.front().gflop_s; });
}

BoundSeconds CpuRates::multiply(const std::vector<MatrixUse>& uses, double tokens,
                                bool interleaved) const {
  BoundSeconds seconds;
  for (const MatrixUse& use : uses) {
    const FormatRates& rates = rates_of(use.type, interleaved);
    const auto weights = static_cast<double>(use.weights);
    const double reading = static_cast<double>(use.bytes) / (rates.stream_gb_s * 1e9);
    const double total =
        weights * seconds_a_weight(rates.matmul, tokens, reading / weights, share_);
    const bool is_streamed = tokens <= kStreamedTokens;
    const double beyond = total - reading;
    seconds.memory += is_streamed && beyond > 0 ? 0 : reading;
    seconds.arithmetic += is_streamed && beyond > 0 ? total : beyond;
  }
  return seconds;
}

double CpuRates::attend(double flops, bool prompt) const {
  const double gflop_s = prompt ? isa_.prompt_attention_gflop_s : isa_.attention_gflop_s;
  return flops / (gflop_s * 1e9 * share_);
}

double CpuRates::pass(double bytes) const {
  double copy = 0;
  for (const MemoryNode& node : machine_.nodes) copy += node.copy_gb_s;
  return bytes / (copy * 1e9);
}

std::vector<std::string> CpuRates::unknown_formats(const IsaRates& rates, const ModelShape& shape) {
  std::vector<std::string> names;
  auto look = [&](const std::vector<MatrixUse>& uses) {
    for (const MatrixUse& use : uses) {
      const std::string name = type_info(use.type).name;
      if (std::ranges::find(rates.formats, name, &FormatRates::format) != rates.formats.end())
        continue;
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  };
  look(shape.head);
  for (const LayerShape& layer : shape.layers) {
    look(layer.dense);
    look(layer.expert);
  }
  return names;
}

}  // namespace hearth
