// Measures this machine, with a progress bar on standard error.
#pragma once

#include <string>
#include <vector>

#include "offload/machine/machine.h"

namespace hearth::cli {

struct ProfilerOptions {
  bool quick = false;  // within 10 s, else within a minute
  std::string disk;    // a folder whose disk is measured too; empty: none
  int threads = 0;     // 0: one a physical core
};

struct MeasuredMachine {
  Machine machine;
  std::vector<std::string> notes;  // what a person should know of the measurement
};

// Throws Error where the disk can't be measured.
MeasuredMachine measure_this_machine(const ProfilerOptions& options);

}  // namespace hearth::cli
