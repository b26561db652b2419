// Who computes a layer's experts that a device doesn't hold: those with many tokens go over the
// link to it, those with few stay with the CPU, so that both sides end at about the same time. In
// decode, where all have few, it is a matter of whether the host's memory gives more than the CPU
// takes.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace hearth {

// What it costs to have an expert computed, as a machine's profile has it.
struct LinkRates {
  double link_gb_s;      // from the host to the device, while the CPU computes
  double cpu_read_gb_s;  // of the weights, by all cores
  double cpu_gflop_s;    // of products with many tokens, reading apart
  // Of the weights while copies use the link; no more than cpu_read_gb_s counts.
  double cpu_read_beside_gb_s = std::numeric_limits<double>::infinity();
  double start_seconds = 0;  // of any sending at all
};

struct ExpertSize {
  int64_t bytes;
  int64_t weights;
};

// `tokens`: of each expert, falling. How many of the first ones to send. To send none takes the sum
// of bytes / cpu_read + flops / cpu_gflop; to send some takes the start and the longer of two:
// bytes / link of these, and the same sum of the others with the reading beside copies. Where they
// come from, memory or a disk, is no matter: they are read from there for either side.
int64_t count_to_send(std::span<const int32_t> tokens, const ExpertSize& size,
                      const LinkRates& rates);

}  // namespace hearth
