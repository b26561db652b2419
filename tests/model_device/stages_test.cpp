// The stages that a step on a device tells, beside the CPU's.
#include <doctest/doctest.h>

#include <span>
#include <vector>

#include "model_device/runner.h"

using namespace hearth;
using namespace hearth::test;

namespace {

// The CPU, one step after the other.
struct CpuSteps {
  CpuSteps(const Model& model, KvType type, int64_t context)
      : cache(model.config, type, context, small_limits()),
        forward(model.config, model.weights, choose_kernels("avx2"), workers, context,
                small_limits()) {}
  const StageClock& clock_of(std::span<const int32_t> tokens) {
    forward.clock().clear();
    const Segment segment{&cache, tokens};
    forward.run({&segment, 1}, LogitRows::kLast);
    return forward.clock();
  }

  const Workers workers{1};
  KvCache cache;
  Forward forward;
};

// After `old` tokens one that is enqueued, one that is captured, one replayed, and one timed
// between others.
void expect_stages_of_cpu(const Model& model, const std::vector<int32_t>& held, int64_t old) {
  const auto tokens = first_tokens("demo/demo.tokens.txt", old + 6);
  const bool is_part = held != all_experts(model.config);
  Runner runner(model, std::ssize(tokens), 3, small_limits(), held);
  DeviceCache cache = runner.new_cache(KvType::kBF16, std::ssize(tokens));
  CpuSteps cpu(model, KvType::kBF16, std::ssize(tokens));
  for (int64_t at = 0; at < old; ++at) {
    const DeviceSegment segment{&cache, std::span(tokens).subspan(at, 1)};
    runner.forward.run({&segment, 1}, LogitRows::kNone);
    cpu.clock_of(segment.tokens);
  }
  for (int64_t at = old; at < std::ssize(tokens); ++at) {
    CAPTURE(at);
    const bool is_timed = at == old + 4;
    runner.forward.set_timing(is_timed);
    StageClock& clock = runner.forward.clock();
    clock.clear();
    const DeviceSegment segment{&cache, std::span(tokens).subspan(at, 1)};
    runner.forward.run({&segment, 1}, LogitRows::kLast);
    const StageClock& expected = cpu.clock_of(segment.tokens);
    CHECK((clock[Stage::kHostExperts].bytes > 0) == is_part);
    for (int s = 0; s < kStages; ++s) {
      const auto stage = static_cast<Stage>(s);
      CAPTURE(stage_name(stage));
      if (stage == Stage::kHostExperts || stage == Stage::kSampling) continue;
      StageTotals totals = clock[stage];
      CHECK((totals.seconds > 0) == (is_timed && expected[stage].seconds > 0));
      if (stage == Stage::kRoutedExperts) {
        totals.bytes += clock[Stage::kHostExperts].bytes;
        totals.flops += clock[Stage::kHostExperts].flops;
      }
      CHECK(totals.bytes == expected[stage].bytes);
      CHECK(totals.flops == expected[stage].flops);
    }
  }
}

}  // namespace

TEST_CASE(
    "device: a token's stages count what the CPU's do, replayed or not, and have their time") {
  expect_stages_of_cpu(demo(), all_experts(demo().config), 0);
  expect_stages_of_cpu(only_layer(demo(), 1), {3}, 0);
  // Sees more entries than it selects.
  Model indexed = only_layer(demo(), 2);
  indexed.config.index_top_k = 4;
  expect_stages_of_cpu(indexed, all_experts(indexed.config), 20);
}

TEST_CASE(
    "device: of rows together the flops are the CPU's, and a step that ends early has no time") {
  const auto tokens = first_tokens("demo/demo.tokens.txt", 8);
  const Limits limits = small_limits(8);
  Runner runner(demo(), 8, 4, limits);
  DeviceCache cache = runner.new_cache(KvType::kBF16, 8);
  StageClock& clock = runner.forward.clock();
  runner.forward.set_timing(true);
  const DeviceSegment segment{&cache, tokens};
  const auto stop = [](int32_t layers) { return layers < 2; };
  CHECK(runner.forward.run({&segment, 1}, LogitRows::kLast, nullptr, stop).empty());
  for (int s = 0; s < kStages; ++s) CHECK(clock[static_cast<Stage>(s)].seconds == 0);
  clock.clear();
  runner.forward.run({&segment, 1}, LogitRows::kLast);
  CHECK(clock[Stage::kRoutedExperts].bytes == 0);

  const Workers workers{1};
  KvCache own(demo().config, KvType::kBF16, 8, limits);
  Forward forward(demo().config, demo().weights, choose_kernels("avx2"), workers, 8, limits);
  const Segment other{&own, tokens};
  forward.run({&other, 1}, LogitRows::kLast);
  for (int s = 0; s < kStages; ++s) {
    const auto stage = static_cast<Stage>(s);
    CAPTURE(stage_name(stage));
    if (stage == Stage::kHead) continue;  // the CPU mixes the streams of all rows
    CHECK(clock[stage].flops == forward.clock()[stage].flops);
    CHECK((clock[stage].seconds > 0) == (forward.clock()[stage].seconds > 0));
  }
}
