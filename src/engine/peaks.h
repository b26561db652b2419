// What this machine can do at best, measured in this process: the figures that stages are compared
// with.
#pragma once

#include <span>
#include <vector>

#include "base/buffer.h"
#include "engine/engine.h"

namespace hearth {

struct Peaks {
  double read_gb_s = 0;       // bytes all workers together read from memory
  double matmul_gflop_s = 0;  // multiply-adds, counted twice, all workers together do in registers
};

// Bandwidth depends on where memory happens to lie and, where others use the machine too, changes
// from second to second: the probe reads the model's own weights, and should do so right before and
// after what is compared.
class PeakProbe {
 public:
  // Reads what a token reads: all of the engine's dense weights and its share of the experts. Takes
  // 2 GiB of memory instead where they are too small to stand for memory, or still in their file.
  explicit PeakProbe(const Engine& engine);

  Peaks measure() const;

 private:
  void list_weights();
  void add_pieces(std::span<const unsigned char> bytes);

  const Engine& engine_;
  Buffer memory_;  // empty where weights are read
  std::vector<std::span<const unsigned char>> pieces_;
};

// The larger of each.
Peaks max(const Peaks& a, const Peaks& b);

}  // namespace hearth
