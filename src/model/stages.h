// Where the time of a forward pass goes: named stages with the bytes they read and the arithmetic
// they do.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

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
  kSharedExpert,
  kHead,
  kSampling,
};
constexpr int kStages = 11;
const char* stage_name(Stage stage);

struct StageTotals {
  double seconds = 0;
  int64_t bytes = 0;  // weights and cache rows read
  int64_t flops = 0;  // multiply-adds count twice
};

// Totals since the last clear. Written by the thread that runs the model.
class StageClock {
 public:
  void clear() { totals_ = {}; }
  StageTotals& operator[](Stage stage) { return totals_[static_cast<int>(stage)]; }
  const StageTotals& operator[](Stage stage) const { return totals_[static_cast<int>(stage)]; }

 private:
  std::array<StageTotals, kStages> totals_;
};

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
