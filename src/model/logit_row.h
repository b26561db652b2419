// The logits of one row for a sampler, wherever they lie: a draw needs a few numbers of all of them
// and then little more than the block of tokens that it falls into.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu_kernels/kernels.h"

namespace hearth {

// A row as samplers see it is finite: NaN counts as the lowest float, infinities as the largest and
// the lowest. Valid until the next step of its engine.
class LogitRow {
 public:
  virtual ~LogitRow() = default;
  virtual int64_t vocab() const = 0;
  virtual int32_t likeliest() = 0;  // the lowest token at a tie
  // Returns the largest logit. The sums [vocab / kSoftmaxBlock, rounded up] are those of
  // exp((logit - largest) * steepness) over blocks of tokens, as base/softmax.h has them.
  virtual float add_up(float steepness, std::span<float> sums) = 0;
  virtual std::span<const float> block(int64_t index) = 0;
  // As they were computed, if nothing else was asked for.
  virtual std::span<const float> all() = 0;
};

class HostLogitRow final : public LogitRow {
 public:
  // The table must outlive the object.
  explicit HostLogitRow(const Kernels& kernels) : kernels_(kernels) {}
  void set(std::span<const float> logits) { logits_ = logits; }

  int64_t vocab() const override { return std::ssize(logits_); }
  int32_t likeliest() override;
  float add_up(float steepness, std::span<float> sums) override;
  std::span<const float> block(int64_t index) override;
  std::span<const float> all() override { return logits_; }

 private:
  float largest();  // from here on they are finite

  const Kernels& kernels_;
  std::span<const float> logits_;
  std::vector<float> finite_;  // where they aren't
};

// In place, as above.
void make_finite(std::span<float> logits);

}  // namespace hearth
