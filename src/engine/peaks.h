// What this machine can do at best, measured in this process: the figures that stages are compared
// with.
#pragma once

#include "base/buffer.h"
#include "base/workers.h"
#include "cpu_kernels/kernels.h"

namespace hearth {

// Measured in rounds, so that they can be spread over the time of what is compared: on a machine
// that others use too, the best round counts.
class Peaks {
 public:
  // Takes 2 GiB of memory: more than any cache holds.
  Peaks(const Kernels& kernels, const Workers& workers);

  void measure();

  // Bytes all workers together read from memory in a second, in GB/s.
  double read_gb_s() const { return read_gb_s_; }
  // Multiply-adds (counted twice) all workers together do in registers in a second, in GFLOP/s.
  double matmul_gflop_s() const { return matmul_gflop_s_; }

 private:
  const Kernels& kernels_;
  const Workers& workers_;
  Buffer memory_;
  double read_gb_s_ = 0;
  double matmul_gflop_s_ = 0;
};

}  // namespace hearth
