// Caches that grow into memory of experts, on the fake device: what a step touches has memory, what
// both take stays within what they were given, and answers stay what they are.
#include "model/device/vram_border.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/fake_device.h"
#include "model_device/runner.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr int64_t kContext = 4096;
constexpr size_t kPage = 4096;  // of the fake device

// With slabs of one expert, and caches that grow by 8 tokens.
Limits limits_of_border() {
  Limits limits = small_limits(4);
  limits.vram_slab_bytes = 1;
  limits.cache_tokens_at_once = 8;
  return limits;
}

const std::vector<int32_t> kHeld = {9, 9, 9, 9};

struct Bordered : Runner {
  explicit Bordered(uint64_t seed, int64_t spare_bytes = 0)
      : Runner(nano(), kContext, seed, limits_of_border(), kHeld),
        own(*device, shape(), DeviceCache::Room::kAsReached),
        given(tier.bytes() + own.bytes() + spare_bytes),
        border(forward, tier, given) {
    border.add(own);
  }
  DeviceCacheShape shape() const { return {config, KvType::kF32, kContext, limits}; }

  // The next tokens, as if the sequence were about to reach `room`.
  Floats step(std::span<const int32_t> tokens, int64_t room) {
    border.reach(own, std::max(own.position + std::ssize(tokens), room));
    CHECK(tier.bytes() + own.bytes() <= given);
    return run(own, tokens, 4);
  }

  DeviceCache own;
  const int64_t given;
  VramBorder border;
};

}  // namespace

TEST_CASE("device: a cache grows into the memory of experts, with the same logits") {
  if (test::device() != "fake") return;
  const auto tokens = first_tokens("nano/nano.tokens.txt", 20);
  Runner plain(nano(), kContext, 1, limits_of_border(), kHeld);
  DeviceCache cache = plain.new_cache(KvType::kF32, kContext);
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    CAPTURE(seed);
    Bordered runner(seed);
    const int64_t experts = runner.tier.bytes(), fixed = runner.own.bytes();
    CHECK(fixed == DeviceCacheLayout(runner.shape()).bytes_at(0, kPage));
    const int64_t before = counts(*runner.device).most_memory_bytes;
    for (int conversation = 0; conversation < 2; ++conversation) {
      cache.position = 0;
      int64_t at = 0;
      for (const int64_t room : {0, 0, 100, 2000, static_cast<int>(kContext)}) {
        const auto some = std::span(tokens).subspan(at, 4);
        CHECK(test::max_difference(runner.step(some, room), plain.run(cache, some, 4)) < 1e-5);
        at += 4;
      }
      CHECK(runner.own.bytes() == device_cache_bytes(runner.shape(), kPage));
      CHECK(runner.own.bytes() == runner.own.bytes_in_all());
      CHECK(runner.tier.bytes() < experts);
      CHECK(runner.tier.bytes() + runner.own.bytes() > runner.given - (100 << 10));  // an expert
      runner.own.clear();
      CHECK(runner.own.bytes() == fixed);
      CHECK(runner.own.room() == 0);
      runner.border.refill();
      CHECK(runner.tier.bytes() == experts);
    }
    CHECK(counts(*runner.device).most_memory_bytes == before);
  }
}

TEST_CASE("device: steps within the room that a cache has change no memory") {
  if (test::device() != "fake") return;
  Bordered runner(4, 1 << 20);
  CHECK(runner.own.room() == 0);
  runner.border.reach(runner.own, 1);
  CHECK(runner.own.room() == 8);
  CHECK(runner.own.bytes() == first_device_cache_bytes(runner.shape(), kPage));
  const int64_t taken = runner.device->memory().free_bytes;
  for (int64_t tokens = 2; tokens <= 8; ++tokens) {
    runner.border.reach(runner.own, tokens);
    CHECK(runner.own.room() == 8);
  }
  CHECK(runner.device->memory().free_bytes == taken);
  runner.border.reach(runner.own, kContext - 3);
  CHECK(runner.own.room() == kContext);
}

TEST_CASE("device: experts give way to a cache where another program took the memory") {
  if (test::device() != "fake") return;
  Bordered runner(5, 1 << 30);  // what it was given isn't there
  const int64_t experts = runner.tier.bytes();
  const DeviceBuffer other = runner.device->allocate(
      static_cast<size_t>(runner.device->memory().free_bytes) / kPage * kPage);
  runner.border.reach(runner.own, kContext);
  CHECK(runner.own.room() == kContext);
  CHECK(runner.tier.bytes() < experts);
  runner.own.clear();
  const DeviceBuffer rest =
      runner.device->allocate(static_cast<size_t>(runner.device->memory().free_bytes));
  const int64_t left = runner.tier.bytes();
  runner.border.refill();  // finds nothing, and does without
  CHECK(runner.tier.bytes() == left);
}

TEST_CASE("device: what no experts could make room for is told before any memory is taken") {
  if (test::device() != "fake") return;
  Bordered runner(6);
  const std::string what = error_of([&] { runner.border.make_room(1 << 30); });
  CHECK(what.find("a session's cache") != std::string::npos);
  CHECK(what.find("--gpu-budget") != std::string::npos);
  const auto tokens = first_tokens("nano/nano.tokens.txt", 4);
  CHECK(runner.step(tokens, 0).size() == 4 * static_cast<size_t>(runner.config.vocab));
}

TEST_CASE("device: lent memory goes to one more expert of each layer, and so on") {
  const std::vector<LayerExperts> layers = layer_experts(nano().weights);
  const int32_t experts = nano().config.experts;
  const std::vector<int32_t> counts = {2, 0, experts, 5};
  const int64_t slot = VramSlotGroups(layers, experts, std::vector<int32_t>{1, 0, 0, 0}).bytes();
  const auto lent = [&](int64_t bytes) { return with_lent_slots(layers, experts, counts, bytes); };
  CHECK(lent(slot - 1) == counts);
  CHECK(lent(2 * slot) == std::vector<int32_t>{3, 1, experts, 5});
  CHECK(lent(4 * slot + 5) == std::vector<int32_t>{4, 1, experts, 6});
  CHECK(lent(1000 * slot) == std::vector<int32_t>(4, experts));
}
