// What this machine can do at best, measured in this process: the figures that stages are compared
// with.
#pragma once

#include <random>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "engine/engine.h"

namespace hearth {

struct Peaks {
  double read_gb_s = 0;     // bytes all workers together read from memory
  double dense_gb_s = 0;    // the same of dense weights alone, which large caches may keep in part,
  double experts_gb_s = 0;  // and of experts alone, which lie anywhere
  double matmul_gflop_s = 0;  // multiply-adds, counted twice, all workers together do in registers
};

// Bandwidth depends on where memory happens to lie and, where others use the machine too, changes
// from second to second: the probe reads the model's own weights, and should do so right before and
// after what is compared.
class PeakProbe {
 public:
  // Reads what a token reads: the engine's dense weights, and experts that are others each time.
  // Takes 2 GiB of memory instead where they are too small to stand for memory, or still in their
  // file.
  explicit PeakProbe(const Engine& engine);

  Peaks measure();

 private:
  void list_weights();
  void draw_experts();
  double read(size_t first, size_t last) const;
  double bytes_of(size_t first, size_t last) const;
  double multiply_gflop_s() const;
  void add_pieces(std::span<const unsigned char> bytes);

  const Engine& engine_;
  Buffer memory_;  // empty where weights are read
  std::vector<const TensorEntry*> stacks_;
  std::mt19937_64 random_{1};
  std::vector<std::span<const unsigned char>> pieces_;  // dense ones first
  size_t dense_pieces_ = 0;
};

// The larger of each.
Peaks max(const Peaks& a, const Peaks& b);

}  // namespace hearth
