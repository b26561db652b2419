#include "model/device/link_split.h"

#include <algorithm>

namespace hearth {

int64_t count_to_send(std::span<const int32_t> tokens, const ExpertSize& size,
                      const LinkRates& rates) {
  const double giga_bytes = static_cast<double>(size.bytes) * 1e-9;
  const double giga_flops_a_token = 2 * static_cast<double>(size.weights) * 1e-9;
  const auto cpu_seconds = [&](int32_t n) {
    return giga_bytes / rates.cpu_read_gb_s + n * giga_flops_a_token / rates.cpu_gflop_s;
  };
  double on_cpu = 0, on_link = 0;
  for (const int32_t n : tokens) on_cpu += cpu_seconds(n);
  int64_t sent = 0;
  for (const int32_t n : tokens) {
    const double more = on_link + giga_bytes / rates.link_gb_s, less = on_cpu - cpu_seconds(n);
    if (std::max(more, less) >= std::max(on_link, on_cpu)) break;
    on_link = more;
    on_cpu = less;
    ++sent;
  }
  return sent;
}

}  // namespace hearth
