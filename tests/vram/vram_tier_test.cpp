// The tier on the fake device, whose streams run in any order that events leave open: what a step
// reads through the tables are the experts that the host believes in.
#include "offload/vram/vram_tier.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "child.h"
#include "device/fake_device.h"
#include "offload/sim/routing_generator.h"
#include "vram/reading.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr uint64_t kSeeds = 20;

// Layers of experts with random bytes in the host's memory. Each third layer has larger ones.
class HostExperts {
 public:
  HostExperts(int32_t layers, int32_t experts, uint64_t seed = 1) : experts_(experts) {
    std::mt19937_64 random(seed);
    for (int32_t l = 0; l < layers; ++l) {
      const int64_t hidden = l % 3 == 2 ? 7 : 5, dim = 3;
      LayerExperts layer{};
      layer.stacks.gate = stack(hidden, dim, random);
      layer.stacks.up = stack(hidden, dim, random);
      layer.stacks.down = stack(dim, hidden, random);
      layers_.push_back(layer);
    }
  }

  const std::vector<LayerExperts>& layers() const { return layers_; }
  int32_t experts() const { return experts_; }
  void forget(int32_t layer) { layers_[layer].stacks.up.data = nullptr; }

  // Whether the tables' entry is this expert, with all three matrices.
  bool is_at(const ExpertTables& tables, int32_t layer, int32_t expert) const {
    const auto stacks = expert_parts(layers_[layer].stacks);
    for (int p = 0; p < kExpertParts; ++p) {
      const int64_t bytes = tables[p].rows * row_bytes(tables[p].type, tables[p].cols);
      const unsigned char* data = tables[p].data[expert];
      if (data == nullptr || std::memcmp(data, stacks[p].data + expert * bytes, bytes) != 0) {
        return false;
      }
    }
    return true;
  }

 private:
  Matrix stack(int64_t rows, int64_t cols, std::mt19937_64& random) {
    const auto bytes = static_cast<size_t>(experts_ * rows * cols * 4);
    memory_.push_back(std::make_unique<unsigned char[]>(bytes));
    for (size_t i = 0; i < bytes; ++i) {
      memory_.back()[i] = static_cast<unsigned char>(random());
    }
    return {TensorType::kF32, experts_ * rows, cols, memory_.back().get()};
  }

  const int32_t experts_;
  std::vector<std::unique_ptr<unsigned char[]>> memory_;
  std::vector<LayerExperts> layers_;
};

void run_step(VramTier& tier, const Stream& compute, const std::vector<std::vector<int32_t>>& picks,
              int32_t used, Reading<HostExperts>* reading = nullptr) {
  tier.begin_step(compute);
  if (reading != nullptr) reading->enqueue(compute);
  for (int32_t l = 0; l < std::ssize(picks); ++l) {
    if (picks[l].empty()) continue;
    tier.use(l, static_cast<int32_t>(picks[l].size()) / used, used, picks[l].data());
  }
  tier.end_step();
}

// Runs a trace; the device is done with each step before the next begins.
VramTierStats run_trace(VramTier& tier, Device& device, const Stream& compute,
                        const RoutingTrace& trace, int64_t begin, int64_t end) {
  tier.clear_stats();
  std::vector<std::vector<int32_t>> picks(trace.layers);
  for (int64_t t = begin; t < end; ++t) {
    for (int32_t l = 0; l < trace.layers; ++l) {
      const auto at = trace.at(t, l);
      picks[l].assign(at.begin(), at.end());
    }
    run_step(tier, compute, picks, trace.used);
    device.synchronize();
  }
  return tier.stats();
}

int32_t held_by(const VramTier& tier, int32_t layers, int32_t experts) {
  int32_t held = 0;
  for (int32_t l = 0; l < layers; ++l) {
    for (int32_t e = 0; e < experts; ++e) held += tier.holds(l, e);
  }
  return held;
}

}  // namespace

TEST_CASE("every step reads the experts that the host believes in") {
  constexpr int32_t kLayers = 6, kExperts = 12;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto device = make_fake_device({.seed = seed});
    HostExperts host(kLayers, kExperts, seed);
    host.forget(1);
    const std::vector<int32_t> slots = {4, 0, 3, 2, 5, 1};
    VramTier tier(*device, host.layers(), kExperts, slots, {.admissions = 3, .slab_bytes = 600});
    const Stream compute = device->create_stream();
    const auto addresses = tables_of(tier, 3);
    Reading reading(host, tier);
    std::mt19937_64 random(seed);
    constexpr int64_t kSteps = 400;
    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<std::vector<int32_t>> picks;
      for (int32_t l = 0; l < kLayers; ++l) {
        picks.push_back(picks_near(static_cast<int32_t>(step / 40 * 5 + l), kExperts, random));
      }
      run_step(tier, compute, picks, 2, &reading);
      if (random() % 3 == 0) device->synchronize(compute);  // else the host runs ahead
    }
    device->synchronize();
    CHECK(reading.steps() == kSteps);
    CHECK(reading.wrong() == 0);
    CHECK(tier.stats().admissions > 60);
    CHECK(tier.stats().copied_bytes >= tier.stats().admissions * 3 * 5 * 3 * 4);
    CHECK(tier.stats().copied_bytes < tier.stats().admissions * 3 * 7 * 3 * 4);
    CHECK(tier.stats().picks == kSteps * kLayers * 2);
    CHECK(tables_of(tier, 3)[0].data == addresses[0].data);
    for (int32_t e = 0; e < kExperts; ++e) CHECK_FALSE(tier.holds(1, e));
  }
}

TEST_CASE("the device takes the bytes that are known beforehand, and tells where they do not fit") {
  const HostExperts host(5, 8);
  const std::vector<int32_t> slots = {3, 0, 8, 5, 1};
  // Small experts take 2 * 64 + 64 bytes, large ones 3 * 96; pointers 8.
  const int64_t bytes = vram_tier_bytes(host.layers(), 8, slots);
  CHECK(bytes == (3 + 5 + 1) * 192 + 8 * 288 + 5 * 8 * 3 * 8);
  for (const int64_t slab_bytes : {int64_t{1}, int64_t{500}, int64_t{1} << 20}) {
    const auto device = make_fake_device({.memory_bytes = bytes});
    const VramTier tier(*device, host.layers(), 8, slots, {.slab_bytes = slab_bytes});
    CHECK(tier.bytes() == bytes);
    CHECK(device->memory().free_bytes == 0);
  }
  const auto small = make_fake_device({.memory_bytes = bytes - 1000});
  std::string message;
  try {
    VramTier(*small, host.layers(), 8, slots);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(
      message ==
      "the routed experts: fake GPU: 2.2 KiB of GPU memory were asked for, 2.2 KiB of 3.9 KiB are "
      "free. Lower --gpu-budget, or end what else uses the GPU");
}

TEST_CASE("at first each layer has its most popular experts") {
  const auto device = make_fake_device();
  const HostExperts host(2, 4);
  const std::vector<int32_t> slots = {2, 4}, order = {3, 1, 0, 2, 0, 1, 2, 3};
  const VramTier tier(*device, host.layers(), 4, slots, {.order = order});
  for (const int32_t e : {0, 1, 2, 3}) {
    CHECK(tier.holds(0, e) == (e == 3 || e == 1));
    CHECK(tier.holds(1, e));
    CHECK(host.is_at(tables_of(tier, 1), 1, e));
  }
  CHECK_FALSE(tier.holds_all(0));
  CHECK(tier.holds_all(1));
  const VramTier plain(*device, host.layers(), 4, slots);
  CHECK((plain.holds(0, 0) && plain.holds(0, 1)));
}

TEST_CASE("a layer without stacks in memory can't be placed") {
  const auto device = make_fake_device();
  HostExperts host(2, 4);
  host.forget(1);
  CHECK(failed_check([&] { VramTier(*device, host.layers(), 4, std::vector{2, 0}); }).empty());
  CHECK_FALSE(failed_check([&] {
                VramTier(*device, host.layers(), 4, std::vector{2, 1});
              }).empty());
}

TEST_CASE("experts follow the text, layers whose picks nobody tells stay") {
  constexpr int32_t kExperts = 8;
  const auto device = make_fake_device();
  const HostExperts host(2, kExperts);
  VramTier tier(*device, host.layers(), kExperts, std::vector{2, 8}, {.admissions = 1});
  const Stream compute = device->create_stream();
  const auto step = [&](const std::vector<int32_t>& picks) {
    run_step(tier, compute, {picks, {}}, 2);
    device->synchronize();
  };
  step({6, 7});
  step({6, 7});
  step({6, 7});
  CHECK((tier.holds(0, 0) && tier.holds(0, 1)));
  step({6, 7});  // a use makes it 0.02 likelier: three are above the margin
  CHECK(tier.holds(0, 0) + tier.holds(0, 1) == 1);
  CHECK(tier.stats().admissions == 1);
  CHECK(tier.holds(0, 6) + tier.holds(0, 7) == 0);
  step({6, 7});
  CHECK(tier.holds(0, 6) + tier.holds(0, 7) == 1);
  for (int i = 0; i < 4; ++i) step({6, 7});
  CHECK((tier.holds(0, 6) && tier.holds(0, 7)));
  CHECK(tier.holds_all(1));
  CHECK(tier.stats().admissions == 2);

  // Once the second layer's picks are told, its idle experts give way.
  for (int i = 0; i < 20; ++i) {
    run_step(tier, compute, {{i % 4, 4 + i % 4}, {0, 1}}, 2);
    device->synchronize();
  }
  CHECK_FALSE(tier.holds_all(1));
  CHECK(held_by(tier, 2, kExperts) >= 9);
}

TEST_CASE("an expert comes behind the most likely ones, and only past the margin") {
  const auto device = make_fake_device();
  const HostExperts host(1, 4);
  VramTier tier(*device, host.layers(), 4, std::vector{1}, {.admissions = 4, .margin = 0.2f});
  const Stream compute = device->create_stream();
  // 0 and 1 in turn: neither is ahead of the other by the margin.
  for (int i = 0; i < 100; ++i) run_step(tier, compute, {{i % 2}}, 1);
  CHECK(tier.holds(0, 0));
  CHECK(tier.stats().admissions == 0);
  for (int i = 0; i < 40; ++i) run_step(tier, compute, {{2}}, 1);
  device->synchronize();
  run_step(tier, compute, {{2}}, 1);
  CHECK(tier.holds(0, 2));
  CHECK(tier.stats().admissions == 1);
}

TEST_CASE("the tokens of a prompt count one by one") {
  const auto device = make_fake_device();
  const HostExperts host(1, 4);
  VramTier tier(*device, host.layers(), 4, std::vector{1});
  const Stream compute = device->create_stream();
  std::vector<int32_t> prompt(50, 3);
  prompt.resize(70, 2);  // fewer, but later
  run_step(tier, compute, {prompt}, 1);
  run_step(tier, compute, {}, 1);
  device->synchronize();
  tier.begin_step(compute);
  CHECK(tier.holds(0, 2));
  CHECK(tier.stats().picks == 70);
  CHECK(tier.stats().admissions == 1);
}

TEST_CASE("hits rise above those of fixed places, also after the text changes") {
  constexpr int32_t kLayers = 4, kExperts = 64;
  RoutingModel model = routing_like_flash(kLayers, kExperts, 4);
  model.hash_layers = 0;
  model.stay_tokens = 0;
  const std::vector<int64_t> texts = {600, 600, 600};
  const RoutingTrace trace = RoutingGenerator(model, 3).generate(texts);
  const HostExperts host(kLayers, kExperts);
  const std::vector<int32_t> slots(kLayers, kExperts / 4);
  const auto hit_rates = [&](int32_t admissions) {
    const auto device = make_fake_device();
    VramTier tier(*device, host.layers(), kExperts, slots, {.admissions = admissions});
    const Stream compute = device->create_stream();
    std::vector<double> rates;
    for (int64_t begin = 0; begin < 1800; begin += 300) {
      rates.push_back(run_trace(tier, *device, compute, trace, begin, begin + 300).hit_rate());
      CHECK(tier.stats().admissions <= 300 * admissions);
    }
    return rates;
  };
  const std::vector<double> fixed = hit_rates(0), moving = hit_rates(2);
  for (const size_t settled : {1u, 3u, 5u}) {
    CAPTURE(settled);
    CHECK(moving[settled] > fixed[settled] + 0.2);
  }
}

TEST_CASE("where all experts are used alike, hardly any is copied") {
  constexpr int32_t kLayers = 3, kExperts = 256;
  const int64_t tokens = 1500;
  const RoutingTrace trace =
      RoutingGenerator(random_routing(kLayers, kExperts, 6), 5).generate(std::span(&tokens, 1));
  const HostExperts host(kLayers, kExperts);
  const auto device = make_fake_device();
  VramTier tier(*device, host.layers(), kExperts, std::vector<int32_t>(kLayers, 32));
  const Stream compute = device->create_stream();
  const VramTierStats stats = run_trace(tier, *device, compute, trace, 0, tokens);
  CHECK(stats.hit_rate() == doctest::Approx(0.125).epsilon(0.1));
  CHECK(stats.admissions < tokens / 3);
}

TEST_CASE("slabs are given back and taken again while steps run") {
  constexpr int32_t kLayers = 4, kExperts = 12;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto device = make_fake_device({.seed = seed});
    const HostExperts host(kLayers, kExperts, seed);
    const std::vector<int32_t> slots(kLayers, 6);
    VramTier tier(*device, host.layers(), kExperts, slots, {.admissions = 3, .slab_bytes = 600});
    const int64_t all = tier.bytes(), free = device->memory().free_bytes;
    const Stream compute = device->create_stream();
    Reading reading(host, tier);
    std::mt19937_64 random(seed);
    const auto run = [&](int32_t centre, int steps) {
      for (int step = 0; step < steps; ++step) {
        std::vector<std::vector<int32_t>> picks;
        for (int32_t l = 0; l < kLayers; ++l) {
          picks.push_back(picks_near(centre, kExperts, random));
        }
        run_step(tier, compute, picks, 2, &reading);
        if (random() % 3 == 0) device->synchronize(compute);
        // It frees nothing, and ends what is under way all the same.
        if (random() % 5 == 0) tier.shrink(0, compute);
      }
    };
    run(3, 31 + static_cast<int>(seed % 3));
    const int64_t freed = tier.shrink(1000, compute);
    CHECK((freed >= 1000 && freed < 1600));
    CHECK(tier.bytes() == all - freed);
    CHECK(device->memory().free_bytes == free + freed);
    // Those in use stayed.
    for (int32_t l = 0; l < kLayers; ++l) {
      for (int32_t e = 3; e < 7; ++e) CHECK(tier.holds(l, e));
    }
    run(8, 30);
    CHECK(tier.grow(freed - 1) < freed);
    CHECK(tier.grow(freed) + (tier.bytes() - all) >= 0);
    CHECK(tier.bytes() == all);
    CHECK(device->memory().free_bytes == free);
    run(5, 60);
    CHECK(tier.shrink(all, compute) == all - kLayers * kExperts * 3 * 8);
    CHECK(held_by(tier, kLayers, kExperts) == 0);
    run(5, 10);
    CHECK(tier.shrink(1, compute) == 0);
    device->synchronize();
    CHECK(reading.steps() > 130);
    CHECK(reading.wrong() == 0);
  }
}

TEST_CASE("layers that the device has as a whole are taken apart last") {
  const auto device = make_fake_device();
  const HostExperts host(2, 4);
  VramTier tier(*device, host.layers(), 4, std::vector{4, 4}, {.slab_bytes = 1});
  const Stream compute = device->create_stream();
  run_step(tier, compute, {{0, 1}, {}}, 2);
  CHECK(tier.shrink(3 * 192, compute) == 3 * 192);
  CHECK(tier.holds_all(1));
  CHECK(held_by(tier, 2, 4) == 5);
}

TEST_CASE("what shrinks leaves the steps before it as they were, and waits for them") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto device = make_fake_device({.seed = seed});
    const HostExperts host(1, 4);
    VramTier tier(*device, host.layers(), 4, std::vector{2});
    const Stream compute = device->create_stream();
    Reading reading(host, tier);
    while (!tier.holds(0, 3)) {
      device->synchronize();
      run_step(tier, compute, {{3}}, 1, &reading);
    }
    // The tables that this last step brought, and its work, are still on their way.
    const int64_t before = reading.steps();
    CHECK(tier.shrink(1, compute) == 2 * 192);
    CHECK(reading.steps() == before + 1);
    run_step(tier, compute, {{3}}, 1, &reading);
    CHECK(tier.shrink(0, compute) == 0);
    CHECK(reading.steps() == before + 2);
    CHECK(reading.wrong() == 0);
  }
}
