#include "model/stages.h"

namespace hearth {

const char* stage_name(Stage stage) {
  constexpr std::array<const char*, kStages> kNames = {"embedding",
                                                       "hyper_connections",
                                                       "attention_projections",
                                                       "compressor",
                                                       "indexer",
                                                       "attention",
                                                       "router",
                                                       "routed_experts",
                                                       "host_experts",
                                                       "shared_expert",
                                                       "head",
                                                       "sampling"};
  return kNames[static_cast<int>(stage)];
}

void count_product(StageTotals& totals, TensorType type, int64_t rows, int64_t cols, int64_t n,
                   int64_t reads) {
  totals.bytes += reads * rows * row_bytes(type, cols);
  totals.flops += 2 * rows * cols * n;
}

StageClock& StageClock::operator+=(const StageClock& more) {
  for (int s = 0; s < kStages; ++s) {
    totals_[s].seconds += more.totals_[s].seconds;
    totals_[s].bytes += more.totals_[s].bytes;
    totals_[s].flops += more.totals_[s].flops;
  }
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

int64_t StageClock::bytes() const {
  int64_t bytes = 0;
  for (const StageTotals& totals : totals_) bytes += totals.bytes;
  return bytes;
}

}  // namespace hearth
