// Who computes the experts of a prompt that a device doesn't hold: those with many tokens go over
// the link to it, those with few stay with the CPU, so that both sides end at about the same time.
#pragma once

#include <cstdint>
#include <span>

namespace hearth {

// What it costs to have an expert computed, as a machine's profile has it.
struct LinkRates {
  double link_gb_s;      // from the host to the device, while the CPU computes
  double cpu_read_gb_s;  // of the weights, by all cores
  double cpu_gflop_s;    // of products with many tokens, reading apart
};

struct ExpertSize {
  int64_t bytes;
  int64_t weights;
};

// `tokens`: of each expert, falling. How many of the first ones to send. Where they come from,
// memory or a disk, is no matter: they are read from there for either side.
int64_t count_to_send(std::span<const int32_t> tokens, const ExpertSize& size,
                      const LinkRates& rates);

}  // namespace hearth
