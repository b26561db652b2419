// Placements that combine what engines can do: layers on both sides, compressed rows in RAM,
// experts from the disk, caches that grow where experts lie. A plan is made for each of them, and
// the engine follows it to the byte.
#include <doctest/doctest.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device/fake_device.h"
#include "engine/engine.h"
#include "engine/engine_plan.h"
#include "engine/gpu_engines.h"
#include "format/gguf.h"
#include "model/device/needs.h"
#include "model/shape.h"
#include "offload/plan/memory_map.h"
#include "planned.h"
#include "support.h"

using namespace hearth;
using test::kGpuMemory;

namespace {

constexpr int64_t kAll = -1;

struct Chosen {
  int32_t gpu_layers;
  bool entries_in_ram;
  int64_t vram_experts;
  int64_t ram_experts;  // in slots, the others on the disk; kAll: all lie in RAM
};

// An engine that does as was chosen, on a device of its own.
struct Placed {
  Placed(EngineOptions options, const Chosen& chosen, bool has_pages, bool is_recorded = false) {
    options.open_gpu = [this, has_pages] {
      FoundDevice found{make_fake_device({.memory_bytes = kGpuMemory, .has_pages = has_pages}), ""};
      device = found.device.get();
      return found;
    };
    options.plan = plan_of(options, chosen, is_recorded);
    engine = Engine::open(options);
  }
  int64_t taken() const { return kGpuMemory - device->memory().free_bytes; }
  const Plan& plan() const { return engine->plan(); }

  // As make_plan, but for the search.
  static Plan plan_of(EngineOptions options, const Chosen& chosen, bool is_recorded) {
    const FoundDevice gpu = options.open_gpu();
    EngineOptions without = options;
    without.use_gpu = false;
    Plan plan = test::plan_of(without);
    const std::string path = options.model.string();
    const TensorDir dir = open_gguf(options.model);
    const ModelConfig config = read_config(dir, path);
    const Kernels& kernels = kernels_for(options);
    ModelShape shape = shape_of(dir, config, kernels, options.kv, options.limits);
    shape.gpu = gpu_needs(shape, {config, bind_weights(dir, config, path), gpu.device->kernels(),
                                  kernels, options.kv, options.limits, gpu.device->page_bytes()});
    const ChunkBytes chunk =
        chunk_bytes(shape, plan.work, plan.placement.chunk_tokens, plan.threads);
    plan.placement.gpu_layers = chosen.gpu_layers;
    plan.placement.entries_in_ram = chosen.entries_in_ram;
    const auto place = [&](int64_t vram, int64_t ram) {
      MemoryMap map = map_fixed(shape, chunk, plan.placement, plan.work.parallel, vram, ram);
      place_experts(shape, map, plan.placement);
      return map;
    };
    int64_t ram = int64_t{1} << 40;
    int64_t vram = place(0, ram).vram.used + chosen.vram_experts * shape.layers[0].expert_bytes;
    while (chosen.ram_experts != kAll && (place(vram, ram), true) &&
           plan.placement.ram_experts > chosen.ram_experts) {
      ram = std::min(ram, int64_t{1} << 28) - shape.slot_bytes;
    }
    MemoryMap map = place(vram, ram);
    REQUIRE(plan.placement.vram_experts == chosen.vram_experts);
    if (chosen.ram_experts != kAll) REQUIRE(plan.placement.ram_experts == chosen.ram_experts);
    std::vector<int64_t> picks(shape.expert_count());
    for (size_t i = 0; i < picks.size(); ++i) picks[i] = static_cast<int64_t>(i * 7 % 16);
    plan.layers = is_recorded ? rank_experts(shape, plan.placement, picks)
                              : spread_experts(shape, plan.placement);
    add_experts(shape, plan.layers, map);
    plan.vram = map.vram;
    plan.ram = map.ram;
    plan.nvme = map.nvme;
    plan.kv_bytes = map.vram.kv + map.ram.kv;
    plan.scratch_bytes = map.vram.scratch + map.ram.scratch;
    return plan;
  }

  Device* device = nullptr;
  std::unique_ptr<Engine> engine;
};

EngineOptions options_with(int64_t context, int32_t sessions) {
  EngineOptions options = test::demo_options();
  options.context = context;
  options.sessions = sessions;
  options.limits.experts_sent = 2;
  options.limits.cache_tokens_at_once = 8;
  options.limits.vram_slab_bytes = 1;  // one expert
  return options;
}

}  // namespace

TEST_CASE("placements: wherever layers, rows and experts lie, bytes are exact and answers alike") {
  const EngineOptions options = options_with(1024, 2);
  const auto cpu = test::open_on_cpu(options);
  for (const Chosen chosen :
       {Chosen{5, true, 20, 40}, Chosen{3, true, 17, kAll}, Chosen{3, false, 20, 24},
        Chosen{2, true, 32, 30}, Chosen{1, false, 0, 30}}) {
    CAPTURE(chosen.gpu_layers);
    CAPTURE(chosen.vram_experts);
    const Placed placed(options, chosen, false);
    Engine& engine = *placed.engine;
    const Plan& plan = placed.plan();
    REQUIRE(engine.gpu() == placed.device);
    CHECK((engine.cache() != nullptr) == (chosen.ram_experts != kAll));
    test::expect_sessions_alike(engine, *cpu);
    const int64_t before = placed.taken(), pinned = counts(*placed.device).pinned_bytes;
    std::vector<std::unique_ptr<Session>> sessions;
    for (int s = 0; s < options.sessions; ++s) sessions.push_back(engine.new_session());
    CHECK(placed.taken() == plan.vram.used - kGpuContextBytes);
    int64_t host_kv = before - placed.taken();
    for (const auto& session : sessions) host_kv += session->bytes();
    CHECK(host_kv == plan.ram.kv);
    CHECK((counts(*placed.device).pinned_bytes > pinned) == chosen.entries_in_ram);
    // Where VRAM has all experts of its layers, what others would take is planned all the same.
    const bool has_all = chosen.vram_experts == 16 * chosen.gpu_layers;
    CHECK((engine.memory_bytes() + host_kv == plan.ram.used) == !has_all);
    CHECK(engine.memory_bytes() + host_kv <= plan.ram.used);
  }
}

TEST_CASE("placements: caches of the device's layers grow, and take experts' room beside a disk") {
  const EngineOptions options = options_with(4096, 2);
  const auto cpu = test::open_on_cpu(options);
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const std::span<const int32_t> tokens = ids;
  for (const bool entries_in_ram : {false, true}) {
    CAPTURE(entries_in_ram);
    const Placed placed(options, {3, entries_in_ram, 12, 30}, true, true);
    Engine& engine = *placed.engine;
    const Plan& plan = placed.plan();
    const int64_t most = plan.vram.used - kGpuContextBytes, at_first = placed.taken();
    const int64_t expert = plan.routed_bytes / 80;
    const int64_t lent = (at_first - (most - plan.vram.kv)) / expert;
    CHECK(lent > 0);
    // Who lies in VRAM that is lent takes no slot of the cache.
    int64_t in_slots = 0;
    for (const int32_t key : first_in_cache(plan, 16)) {
      const bool is_absent = engine.cache()->is_absent(key / 16, key % 16);
      in_slots += is_absent ? 0 : 1;
      if (key / 16 < 2) CHECK_FALSE(is_absent);
    }
    CHECK(in_slots < plan.ram.experts);
    {
      const auto one = engine.new_session(), two = engine.new_session();
      const auto other = cpu->new_session();
      for (const auto& [from, n] : {std::pair{0, 7}, {7, 1}, {8, 1}, {9, 8}, {17, 1}}) {
        CAPTURE(from);
        two->feed(tokens.subspan(from, n));
        const auto own = one->feed(tokens.subspan(from, n));
        const auto expected = other->feed(tokens.subspan(from, n));
        CHECK(test::max_difference({own.begin(), own.end()}, {expected.begin(), expected.end()}) <
              1e-2);
        CHECK(placed.taken() <= most);
      }
      one->clear();
    }
    CHECK(placed.taken() == at_first);
    test::expect_sessions_alike(engine, *cpu);
    CHECK(counts(*placed.device).most_memory_bytes <= most);
  }
}

TEST_CASE("placements: where a cache can't grow, a split step leaves its session as it was") {
  EngineOptions options = options_with(4096, 1);
  options.limits.vram_slab_bytes = int64_t{1} << 30;  // experts of a kind leave together
  const auto cpu = test::open_on_cpu(options);
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const std::span<const int32_t> tokens = ids;
  const Placed placed(options, {3, false, 12, kAll}, true);
  const auto session = placed.engine->new_session(), other = cpu->new_session();
  std::vector<DeviceBuffer> another_program;
  size_t at = 0;
  std::string refused;
  while (refused.empty() && at < 200) {
    another_program.push_back(
        placed.device->allocate(static_cast<size_t>(placed.device->memory().free_bytes)));
    refused = test::error_of([&] { session->feed(tokens.subspan(at, 8)); });
    if (refused.empty()) other->feed(tokens.subspan(at, 8)), at += 8;
  }
  REQUIRE(refused.find("cache") != std::string::npos);
  CHECK(session->tokens().size() == at);
  another_program.clear();
  const auto own = session->feed(tokens.subspan(at, 8));
  const auto expected = other->feed(tokens.subspan(at, 8));
  CHECK(test::max_difference({own.begin(), own.end()}, {expected.begin(), expected.end()}) < 1e-2);
}
