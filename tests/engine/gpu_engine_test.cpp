// An engine with a GPU, the fake one: what the plan gives it, and answers like the CPU's.
#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/fake_device.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/gpu_engines.h"
#include "engine/peaks.h"
#include "offload/plan/memory_map.h"
#include "planned.h"
#include "support.h"

using namespace hearth;
using test::demo_options, test::error_of, test::plan_of, test::slots_of;

namespace {

constexpr int64_t kMemory = test::kGpuMemory;
constexpr int64_t kContextBytes = kGpuContextBytes;  // of the driver, which the fake hasn't

EngineOptions with_gpu(int64_t memory_bytes) {
  EngineOptions options = demo_options();
  options.gpu_budget = memory_bytes + (int64_t{1} << 30);  // all of it, with the driver's
  options.open_gpu = [=] {
    return FoundDevice{make_fake_device({.memory_bytes = memory_bytes}), ""};
  };
  return options;
}

std::vector<float> logits_of(Engine& engine, Session& session, std::span<const int32_t> tokens) {
  const Feed feed{&session, tokens};
  const auto logits = engine.step({&feed, 1}, LogitRows::kLast);
  return {logits.begin(), logits.end()};
}

// A prompt and three tokens after it, on both; a step like the one before is replayed.
void expect_alike(Engine& engine, Engine& cpu) {
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const auto session = engine.new_session(), other = cpu.new_session();
  const std::span<const int32_t> tokens = ids;
  int64_t at = 0;
  for (const int64_t n : {4, 1, 1, 1}) {
    CAPTURE(at);
    CHECK(test::max_difference(logits_of(engine, *session, tokens.subspan(at, n)),
                               logits_of(cpu, *other, tokens.subspan(at, n))) < 1e-2);
    at += n;
  }
}

}  // namespace

TEST_CASE("an engine with a GPU answers as the CPU does, whatever part of the experts it holds") {
  const auto cpu = test::open_on_cpu(demo_options());
  CHECK(cpu->gpu() == nullptr);
  const auto whole = Engine::open(with_gpu(int64_t{1} << 30));
  REQUIRE(whole->gpu() != nullptr);
  CHECK(whole->plan().vram.experts == int64_t{whole->config().layers} * whole->config().experts);
  CHECK(whole->plan().ram.experts == 0);
  expect_alike(*whole, *cpu);

  // Half of the experts at most.
  EngineOptions part = with_gpu(int64_t{1} << 30);
  part.gpu_budget = whole->plan().vram.used - whole->plan().routed_bytes / 2;
  const auto half = Engine::open(part);
  REQUIRE(half->gpu() != nullptr);
  CHECK(half->plan().vram.experts > 0);
  CHECK(half->plan().ram.experts > 0);
  CHECK(half->plan().vram.used <= *part.gpu_budget);
  expect_alike(*half, *cpu);
  PeakProbe probe(*half);
  CHECK(probe.measure().read_gb_s > 0);
}

TEST_CASE("what an engine takes of a GPU is what its plan says") {
  for (const bool is_part : {false, true}) {
    EngineOptions options = demo_options();
    options.gpu_budget = int64_t{1} << 30;
    const Device* device = nullptr;
    options.open_gpu = [&] {
      // In part with caches that have all of their memory from the begin.
      FoundDevice found{make_fake_device({.memory_bytes = kMemory, .has_pages = !is_part}), ""};
      device = found.device.get();
      return found;
    };
    if (is_part) {
      const Plan whole = plan_of(options);
      options.gpu_budget = whole.vram.used - whole.routed_bytes / 2;
    }
    const auto engine = Engine::open(options);
    const auto session = engine->new_session();
    const int64_t taken = kMemory - device->memory().free_bytes;
    const int64_t planned = engine->plan().vram.used - kContextBytes;
    CHECK(taken == planned);
  }
}

TEST_CASE("compressed rows lie in RAM where VRAM has no room for them, and are pinned as planned") {
  EngineOptions options = with_gpu(kMemory);
  options.context = 16384;
  const Device* device = nullptr;
  int64_t pinned_most = std::numeric_limits<int64_t>::max();
  options.open_gpu = [&] {
    FoundDevice found{make_fake_device({.memory_bytes = kMemory,
                                        .pinned_buffer_bytes = pinned_most,
                                        .has_pages = false}),  // so that caches take all at once
                      ""};
    device = found.device.get();
    return found;
  };
  const Plan whole = plan_of(options);
  CHECK_FALSE(whole.placement.entries_in_ram);
  options.gpu_budget = whole.vram.used - whole.routed_bytes - whole.kv_bytes;
  while (plan_of(options).placement.gpu_layers < std::ssize(whole.layers)) {
    *options.gpu_budget += 128 << 10;
  }
  const auto cpu = test::open_on_cpu(demo_options());
  for (int replayed = 0; replayed < 2; ++replayed) {
    const auto engine = Engine::open(options);
    REQUIRE(engine->gpu() != nullptr);
    const Plan& plan = engine->plan();
    CHECK(plan.placement.entries_in_ram);
    CHECK(plan.vram.used <= *options.gpu_budget);
    CHECK(plan.ram.kv >= 1 << 20);
    const int64_t pinned = counts(*device).pinned_bytes;
    {
      const auto session = engine->new_session();
      CHECK(kMemory - device->memory().free_bytes == plan.vram.used - kContextBytes);
      CHECK(counts(*device).pinned_bytes - pinned == plan.ram.kv);
      CHECK(session->bytes() >= plan.kv_bytes);
      if (replayed == 1) pinned_most = counts(*device).pinned_buffer_bytes - 1;
    }
    expect_alike(*engine, *cpu);
    options.plan = plan;
  }
  const auto engine = Engine::open(options);
  const std::string what = error_of([&] { engine->new_session(); });
  CHECK(what.find("compressed rows") != std::string::npos);
  CHECK(what.find("--ctx") != std::string::npos);
}

TEST_CASE(
    "beside a GPU experts come from the disk as planned, and a failed read fails one request") {
  const test::TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "model.gguf";
  std::filesystem::copy_file(test::models("demo.gguf"), path);
  EngineOptions options = with_gpu(kMemory);
  options.model = path;
  options.limits.experts_sent = 2;
  const Plan whole = plan_of(options);
  const Device* device = nullptr;
  options.open_gpu = [&] {
    FoundDevice found{make_fake_device({.memory_bytes = kMemory, .has_pages = false}), ""};
    device = found.device.get();
    return found;
  };
  // No experts in VRAM, some in slots: the least that works, so that many are sent and read.
  options.gpu_budget = whole.vram.used - whole.routed_bytes;
  options.ram_budget = int64_t{110} << 20;
  while (!plan_of(options).placement.uses_gpu()) *options.gpu_budget += 16 << 10;
  while (slots_of(plan_of(options)) > 60) *options.ram_budget -= 1 << 20;
  const auto engine = Engine::open(options);
  REQUIRE(engine->gpu() == device);
  REQUIRE(engine->cache() != nullptr);
  CHECK(engine->plan().vram.experts == 0);
  const auto cpu = test::open_on_cpu(demo_options());
  const int64_t loading = counts(*device).unpinned_copies;
  for (int i = 0; i < 3; ++i) expect_alike(*engine, *cpu);
  CHECK(counts(*device).unpinned_copies == loading);
  {
    const auto session = engine->new_session();
    CHECK(kMemory - device->memory().free_bytes == engine->plan().vram.used - kContextBytes);
  }

  const auto bytes = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, bytes / 4);  // the header and little more
  int failures = 0;
  for (int32_t i = 0; i < 10; ++i) {
    const auto session = engine->new_session();
    const auto feed = [&] { session->feed(std::vector<int32_t>{20 + 7 * i, 21 + 5 * i}); };
    failures += error_of(feed).find("the file ends before it") != std::string::npos;
  }
  CHECK(failures > 0);
  std::filesystem::copy_file(test::models("demo.gguf"), path,
                             std::filesystem::copy_options::overwrite_existing);
  expect_alike(*engine, *cpu);
}

TEST_CASE("a short conversation leaves VRAM to more experts than are planned beside a long one") {
  EngineOptions options = with_gpu(kMemory);
  options.context = 16384;
  options.sessions = 2;
  options.limits.cache_tokens_at_once = 8;
  options.limits.vram_slab_bytes = 1;  // one expert
  const Device* device = nullptr;
  bool has_pages = true;
  options.open_gpu = [&] {
    FoundDevice found{make_fake_device({.memory_bytes = kMemory, .has_pages = has_pages}), ""};
    device = found.device.get();
    return found;
  };
  const Plan whole = plan_of(options);
  options.gpu_budget = whole.vram.used - whole.routed_bytes / 2;
  // Nothing is spare.
  for (int i = 0; i < 2; ++i) options.gpu_budget = plan_of(options).vram.used;
  const auto cpu = test::open_on_cpu(demo_options());
  for (const bool pages : {true, false}) {
    has_pages = pages;
    const auto engine = Engine::open(options);
    const Plan& plan = engine->plan();
    REQUIRE(engine->gpu() != nullptr);
    REQUIRE(plan.ram.experts > 0);
    const auto taken = [&] { return kMemory - device->memory().free_bytes; };
    const int64_t most = plan.vram.used - kContextBytes, at_first = taken();
    // Without pages a cache has all of its memory from the begin, so nothing is lent.
    const int64_t planned = most - plan.vram.kv;
    CHECK((at_first > planned + plan.vram.kv / 2) == pages);
    if (pages) expect_alike(*engine, *cpu);
    {
      const auto one = engine->new_session(), two = engine->new_session();
      const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
      one->feed(std::span(ids).first(20));
      two->feed(std::span(ids).first(12));
      CHECK(taken() > most - (200 << 10));
      one->clear();
      one->feed(std::span(ids).first(2));
      CHECK(one->bytes() + two->bytes() >= plan.kv_bytes);
      if (!pages) CHECK(taken() == most);
      // A third was not planned: experts have to give way for it.
      const auto three = engine->new_session();
      CHECK(three->feed(std::span(ids).first(3)).size() > 0);
    }
    CHECK(taken() == at_first);
    CHECK(counts(*device).most_memory_bytes <= most);
  }
}

TEST_CASE("experts come from the disk to a GPU, each into one tier, none out of the mapped file") {
  EngineOptions options = with_gpu(kMemory);
  options.limits.experts_sent = 2;
  const Plan whole = plan_of(options);
  const Device* device = nullptr;
  options.open_gpu = [&] {
    FoundDevice found{make_fake_device({.memory_bytes = kMemory}), ""};
    device = found.device.get();
    return found;
  };
  const auto give = [&](int64_t vram_experts) {
    options.gpu_budget = whole.vram.used - whole.routed_bytes * (80 - vram_experts) / 80;
  };
  options.ram_budget = int64_t{110} << 20;
  give(16);
  while (slots_of(plan_of(options)) > 30) *options.ram_budget -= 1 << 20;
  const auto few = Engine::open(options);
  REQUIRE(few->cache() != nullptr);
  const int64_t fewer = counts(*device).unpinned_copies;
  give(32);
  const auto many = Engine::open(options);
  REQUIRE(many->cache() != nullptr);
  CHECK(many->plan().vram.experts > few->plan().vram.experts);
  const int64_t loading = counts(*device).unpinned_copies;
  CHECK(loading == fewer);
  const auto cpu = test::open_on_cpu(demo_options());
  for (int i = 0; i < 3; ++i) expect_alike(*many, *cpu);
  CHECK(counts(*device).unpinned_copies == loading);
  CHECK(many->plan().vram.experts + many->plan().ram.experts + many->plan().nvme.experts == 80);
}

TEST_CASE("an answer from a GPU has the tokens that its logits give on the host") {
  const auto engine = Engine::open(with_gpu(int64_t{1} << 30));
  const auto session = engine->new_session(), other = engine->new_session();
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const std::vector<int32_t> prompt(ids.begin(), ids.begin() + 3);
  GenerateOptions options;
  options.max_tokens = 4;
  options.sampling = {.temperature = 1.5f, .seed = 3};
  const Generated answer = generate(*engine, *session, prompt, options);
  REQUIRE(answer.tokens.size() == 4);
  Sampler sampler(options.sampling, engine->kernels());
  std::vector<int32_t> expected;
  auto logits = other->feed(prompt);
  for (int i = 0; i < 4; ++i) {
    expected.push_back(sampler.sample(logits, expected));
    logits = other->feed(std::span(expected).last(1));
  }
  CHECK(answer.tokens == expected);
}

TEST_CASE("a plan with a GPU is replayed where there is one, and refused where there isn't") {
  EngineOptions options = with_gpu(int64_t{1} << 30);
  options.plan = plan_of(options);
  CHECK(Engine::open(options)->plan().hash() == options.plan->hash());
  options.use_gpu = false;
  CHECK(error_of([&] { Engine::open(options); }).find("none is used here") != std::string::npos);
}

TEST_CASE("no GPU is an answer, unless VRAM was asked for") {
  EngineOptions options = demo_options();
  options.open_gpu = [] { return FoundDevice{nullptr, "the slot is empty"}; };
  const auto engine = Engine::open(options);
  CHECK(engine->gpu() == nullptr);
  CHECK(engine->why_no_gpu() == "the slot is empty");
  options.gpu_budget = int64_t{1} << 30;
  const std::string what = error_of([&] { Engine::open(options); });
  CHECK(what.find("--gpu-budget") != std::string::npos);
  CHECK(what.find("the slot is empty") != std::string::npos);
  // Less than every token reads.
  options = with_gpu(int64_t{1} << 30);
  options.gpu_budget = int64_t{401} << 20;
  CHECK(Engine::open(options)->gpu() == nullptr);
}
