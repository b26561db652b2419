// Where the time of a forward pass goes: named stages with the bytes they read and the arithmetic
// they do.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

enum class Stage {
  kEmbedding,
  kHyperConnection,
  kAttentionProjections,
  kCompressor,
  kIndexer,
  kAttention,
  kRouter,
  kRoutedExperts,
  kHostExperts,  // routed ones that the CPU computes beside a GPU
  kHostLayers,   // all of the first layers, where the CPU computes these beside a GPU
  kSharedExpert,
  kHead,
  kSampling,
};
constexpr int kStages = 13;
const char* stage_name(Stage stage);

struct StageTotals {
  double seconds = 0;
  int64_t bytes = 0;  // weights and cache rows read
  int64_t flops = 0;  // multiply-adds count twice

  StageTotals& operator+=(const StageTotals& more);
};

// A matrix [rows, cols] that is read once, or `reads` of this shape, times `n` rows in all.
void count_product(StageTotals& totals, TensorType type, int64_t rows, int64_t cols, int64_t n,
                   int64_t reads = 1);

// Totals since the last clear. Written by the thread that runs the model.
class StageClock {
 public:
  void clear() { totals_ = {}; }
  StageTotals& operator[](Stage stage) { return totals_[static_cast<int>(stage)]; }
  const StageTotals& operator[](Stage stage) const { return totals_[static_cast<int>(stage)]; }
  StageClock& operator+=(const StageClock& more);
  StageTotals sum() const;  // of all stages
  int64_t bytes() const { return sum().bytes; }

 private:
  std::array<StageTotals, kStages> totals_;
};

// What has been added since the clock was `before`.
StageClock operator-(const StageClock& now, const StageClock& before);

// Adds the time of its own life to a stage.
class StageTimer {
 public:
  explicit StageTimer(StageTotals& totals)
      : totals_(totals), start_(std::chrono::steady_clock::now()) {}
  ~StageTimer() {
    totals_.seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  StageTotals& totals_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace hearth
