#include "model/stages.h"

namespace hearth {

const char* stage_name(Stage stage) {
  constexpr std::array<const char*, kStages> kNames = {
      "embedding",   "hyper_connections", "attention_projections",
      "compressor",  "indexer",           "attention",
      "router",      "routed_experts",    "host_experts",
      "host_layers", "shared_expert",     "head",
      "sampling"};
  return kNames[static_cast<int>(stage)];
}

void count_product(StageTotals& totals, TensorType type, int64_t rows, int64_t cols, int64_t n,
                   int64_t reads) {
  totals.bytes += reads * rows * row_bytes(type, cols);
  totals.flops += 2 * rows * cols * n;
}

StageTotals& StageTotals::operator+=(const StageTotals& more) {
  seconds += more.seconds;
  bytes += more.bytes;
  flops += more.flops;
  return *this;
}

StageClock& StageClock::operator+=(const StageClock& more) {
  for (int s = 0; s < kStages; ++s) totals_[s] += more.totals_[s];
  return *this;
}

StageClock operator-(const StageClock& now, const StageClock& before) {
  StageClock result;
  for (int s = 0; s < kStages; ++s) {
    const auto stage = static_cast<Stage>(s);
    result[stage] = {now[stage].seconds - before[stage].seconds,
                     now[stage].bytes - before[stage].bytes,
                     now[stage].flops - before[stage].flops};
  }
  return result;
}

StageTotals StageClock::sum() const {
  StageTotals sum;
  for (const StageTotals& totals : totals_) sum += totals;
  return sum;
}

}  // namespace hearth
