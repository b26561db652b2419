// What this machine can do at best, measured in this process: the figures that stages are compared
// with.
#pragma once

#include "base/buffer.h"
#include "base/workers.h"
#include "cpu_kernels/kernels.h"

namespace hearth {

struct Peaks {
  double read_gb_s = 0;       // bytes all workers together read from memory
  double matmul_gflop_s = 0;  // multiply-adds, counted twice, all workers together do in registers
};

// On a machine that others use too, bandwidth changes from second to second: measure right before
// and after what is compared.
class PeakProbe {
 public:
  // Takes 2 GiB of memory: more than any cache holds.
  PeakProbe(const Kernels& kernels, const Workers& workers);

  Peaks measure() const;

 private:
  const Kernels& kernels_;
  const Workers& workers_;
  Buffer memory_;
};

// The larger of each.
Peaks max(const Peaks& a, const Peaks& b);

}  // namespace hearth
