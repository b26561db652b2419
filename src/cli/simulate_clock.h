// `hearth simulate --machine`: a plan is made and followed on a virtual clock.
#pragma once

#include <string>

#include "cli/plan_options.h"
#include "cli/routing_work.h"
#include "offload/sim/decode_clock.h"

namespace hearth::cli {

struct ClockOptions {
  PlanOptions asked;
  std::string policy = "hearth";
  double warm_up = 25;  // percent
  double stall_ms = 0;
  ClockSettings settings;  // warm-up and stall are filled in from the above
};

// Throws a usage Error.
void check_clock_options(const ClockOptions& options);
// Prints the report. Throws Error where nothing can be planned or simulated.
void simulate_clock(const PlanCase& planned, const RoutingWork& work, const ClockOptions& options,
                    bool json);

}  // namespace hearth::cli
