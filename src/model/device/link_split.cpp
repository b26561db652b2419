#include "model/device/link_split.h"

#include <algorithm>

namespace hearth {

int64_t count_to_send(std::span<const int32_t> tokens, const ExpertSize& size,
                      const LinkRates& rates) {
  const double giga_bytes = static_cast<double>(size.bytes) * 1e-9;
  const double giga_flops_a_token = 2 * static_cast<double>(size.weights) * 1e-9;
  const double beside_gb_s = std::min(rates.cpu_read_gb_s, rates.cpu_read_beside_gb_s);
  const auto cpu_seconds = [&](int32_t n, double read_gb_s) {
    return giga_bytes / read_gb_s + n * giga_flops_a_token / rates.cpu_gflop_s;
  };
  double alone = 0, on_cpu = 0, on_link = 0;
  for (const int32_t n : tokens) {
    alone += cpu_seconds(n, rates.cpu_read_gb_s);
    on_cpu += cpu_seconds(n, beside_gb_s);
  }
  double best = alone;
  int64_t sent = 0;
  for (int64_t i = 0; i < std::ssize(tokens); ++i) {
    on_link += giga_bytes / rates.link_gb_s;
    on_cpu -= cpu_seconds(tokens[i], beside_gb_s);
    const double both = std::max(on_link, on_cpu) + rates.start_seconds;
    if (both >= best) continue;
    best = both;
    sent = i + 1;
  }
  return sent;
}

}  // namespace hearth
