// What a machine's cores take for a piece of work, by the rates of its profile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "offload/machine/machine.h"
#include "offload/plan/model_shape.h"

namespace hearth {

// Seconds of products, each counted where it is bound.
struct BoundSeconds {
  double memory = 0;
  double arithmetic = 0;
  double total() const { return memory + arithmetic; }
};

class CpuRates {
 public:
  // `isa`: a table the profile has rates of, empty for its best. `threads`: at least 1; more
  // than there are cores help no further. `machine` must outlive the object. Throws Error where the
  // profile has no such table.
  CpuRates(const Machine& machine, const std::string& isa, int32_t threads);

  const std::string& isa() const { return isa_.name; }
  int32_t threads() const { return threads_; }

  // Seconds to multiply these matrices with `tokens` tokens: they are read from memory once. With
  // few tokens the slower of reading and arithmetic counts; with more the rates are of both.
  // `interleaved`: their rows are, where formats have such rates.
  BoundSeconds multiply(const std::vector<MatrixUse>& uses, double tokens,
                        bool interleaved = false) const;
  double attend(double flops, bool prompt) const;
  // Values that pass through the cores between products: read and written.
  double pass(double bytes) const;
  double loops(double count) const { return count * machine_.cpu.loop_us * 1e-6; }

  // Formats met that the profile has no rates of; others stood in.
  static std::vector<std::string> unknown_formats(const IsaRates& rates, const ModelShape& shape);
  const IsaRates& rates() const { return isa_; }

 private:
  const FormatRates* find_rates(TensorType type, bool interleaved) const;
  const FormatRates& rates_of(TensorType type, bool interleaved) const;

  const Machine& machine_;
  const IsaRates& isa_;
  const int32_t threads_;
  const double share_;  // of the cores
};

// Floating-point operations of one weight for `tokens` tokens.
constexpr double matmul_flops(double weights, double tokens) { return 2 * weights * tokens; }

}  // namespace hearth
