// The first layers on the CPU, the others on a device, the fake one: what the device alone or the
// CPU alone computes, wherever the border lies.
#include <doctest/doctest.h>

#include <memory>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cpu_kernels/registry.h"
#include "device/fake_device.h"
#include "engine/engine.h"
#include "engine/gpu_engines.h"
#include "engine/runner.h"
#include "loaded_model.h"
#include "offload/plan/memory_map.h"
#include "offload/store/open_cache.h"
#include "planned.h"
#include "support.h"

using namespace hearth;
using test::demo;
using test::Loaded;
using test::nano;

namespace {

using Floats = std::vector<float>;
using Tokens = std::span<const int32_t>;

// Of every token the streams after each layer, of layer -1 too, and the picks.
class Recorder : public ForwardObserver {
 public:
  explicit Recorder(const ModelConfig& config)
      : used_(config.experts_used),
        width_(int64_t{config.streams} * config.dim),
        hidden(config.layers + 1),
        chosen(config.layers) {}
  void streams(int32_t layer, const float* h, int64_t stride, int64_t n) override {
    for (int64_t row = 0; row < n; ++row) {
      hidden[layer + 1].insert(hidden[layer + 1].end(), h + row * stride,
                               h + row * stride + width_);
    }
  }
  void picks(int32_t layer, const int32_t* picks, int64_t n) override {
    for (int64_t row = 0; row < n; ++row) {
      chosen[layer].emplace_back(picks + row * used_, picks + (row + 1) * used_);
    }
  }

 private:
  int32_t used_;
  int64_t width_;

 public:
  std::vector<Floats> hidden;
  std::vector<std::vector<std::multiset<int32_t>>> chosen;
};

// A model whose layers from `first_layer` on are the device's, with `held` experts of each there;
// all layers are the CPU's where that is the number of layers.
struct Split {
  Split(const Loaded& model, KvType kv, int64_t context, int32_t first_layer, int32_t held,
        std::unique_ptr<ExpertCache> cache = nullptr)
      : device(make_fake_device({.seed = 1 + static_cast<uint64_t>(first_layer)})) {
    Limits limits;
    limits.chunk_tokens = 8;
    limits.logit_rows = 8;
    limits.experts_sent = 2;
    const RunnerParts parts{model.config, model.weights, choose_kernels("avx2"), workers, kv,
                            context,      limits};
    if (first_layer == model.config.layers) {
      runner = make_host_runner(parts, std::move(cache));
      return;
    }
    VramShare share{.first_layer = first_layer, .counts = {}, .order = {}};
    for (int32_t i = 0; i < model.config.layers; ++i) {
      share.counts.push_back(i < first_layer ? 0 : held);
    }
    runner = make_device_runner(parts, *device, share, {1e9, 1, 1}, {std::move(cache), {}});
    if (runner->cache() != nullptr) REQUIRE(!runner->load_experts({}, nullptr));
  }

  // All logits, the tokens fed in the pieces named.
  Floats run(Sequence& sequence, Tokens tokens, const std::vector<int64_t>& pieces,
             ForwardObserver* observer = nullptr) {
    Floats logits;
    for (const int64_t n : pieces) {
      const SequenceFeed feed{&sequence, tokens.first(n)};
      const auto some = runner->run({&feed, 1}, LogitRows::kAll, observer, nullptr);
      logits.insert(logits.end(), some.begin(), some.end());
      tokens = tokens.subspan(n);
    }
    return logits;
  }

  const Workers workers{1};
  std::unique_ptr<Device> device;
  std::unique_ptr<Runner> runner;
};

constexpr int64_t kMemory = test::kGpuMemory;
constexpr int64_t kContextBytes = kGpuContextBytes;  // of the driver, which the fake hasn't

// Of many sessions, which a GPU computes sooner than one core even where it has few layers; with
// caches that have all of their memory from the begin.
EngineOptions split_options() {
  EngineOptions options = test::demo_options();
  options.limits.experts_sent = 2;
  options.sessions = 8;
  options.open_gpu = [] {
    return FoundDevice{make_fake_device({.memory_bytes = kMemory, .has_pages = false}), ""};
  };
  return options;
}

// The plan with the most VRAM, lowered in steps, that no more than this many layers take part of.
Plan plan_with_layers(EngineOptions& options, int32_t layers) {
  options.gpu_budget = kMemory;
  Plan plan = test::plan_of(options);
  // What all layers take but their experts is too much.
  options.gpu_budget = plan.vram.used - plan.routed_bytes - (64 << 10);
  while ((plan = test::plan_of(options)).placement.gpu_layers > layers) {
    *options.gpu_budget -= 256 << 10;
  }
  return plan;
}

}  // namespace

TEST_CASE("split layers: nano's logits are the golden ones, wherever the border lies") {
  const ModelConfig& config = nano().config;
  const std::vector<int32_t> ids = test::read_ids(test::data("nano/nano.tokens.txt"));
  const std::vector<int64_t> pieces = {8, 5, 1, 1, 1, 1};  // the last ones are replayed
  const Tokens tokens = Tokens(ids).first(17);
  Floats golden = test::read_array<float>(test::data("nano/nano.logits.f32"));
  golden.resize(tokens.size() * config.vocab);
  Recorder expected(config);
  {
    Split cpu(nano(), KvType::kF32, 17, config.layers, 0);
    const auto sequence = cpu.runner->new_sequence(17);
    CHECK(test::max_difference(cpu.run(*sequence, tokens, pieces, &expected), golden) < 1e-5);
  }
  REQUIRE(config.layers == 4);
  struct Case {
    int32_t first, held;
  };
  for (const auto [first, held] : {Case{1, config.experts}, Case{2, 3}, Case{3, 0}}) {
    CAPTURE(first);
    CAPTURE(held);
    Split split(nano(), KvType::kF32, 17, first, held);
    const auto sequence = split.runner->new_sequence(17);
    Recorder recorder(config);
    CHECK(test::max_difference(split.run(*sequence, tokens, pieces, &recorder), golden) < 1e-5);
    CHECK(recorder.chosen == expected.chosen);
    for (int32_t layer = -1; layer < config.layers; ++layer) {
      CAPTURE(layer);
      CHECK(test::max_difference(recorder.hidden[layer + 1], expected.hidden[layer + 1]) < 1e-5);
    }
    // Without the observer, so that tokens are replayed. No copy holds up the host.
    sequence->clear();
    const int64_t copies = counts(*split.device).unpinned_copies;
    CHECK(test::max_difference(split.run(*sequence, tokens, pieces), golden) < 1e-5);
    if (held == config.experts) CHECK(counts(*split.device).unpinned_copies == copies);
    // Without logits the host goes on while the device is at work.
    sequence->clear();
    Floats last;
    for (int64_t at = 0; at < 16; at += 4) {
      const SequenceFeed feed{sequence.get(), tokens.subspan(at, 4)};
      const auto wanted = at < 12 ? LogitRows::kNone : LogitRows::kLast;
      const auto logits = split.runner->run({&feed, 1}, wanted, nullptr, nullptr);
      last.assign(logits.begin(), logits.end());
    }
    const auto row = golden.begin() + 15 * config.vocab;
    CHECK(test::max_difference(last, {row, row + config.vocab}) < 1e-5);
  }
}

TEST_CASE("split layers: the demo model computes what the CPU does, wherever the border lies") {
  const ModelConfig& config = demo().config;
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const std::vector<int64_t> pieces = {5, 1, 1, 1};
  const Tokens tokens = Tokens(ids).first(8);
  Split cpu(demo(), KvType::kBF16, 8, config.layers, 0);
  const Floats expected = cpu.run(*cpu.runner->new_sequence(8), tokens, pieces);
  for (int32_t first = 1; first < config.layers; ++first) {
    CAPTURE(first);
    Split split(demo(), KvType::kBF16, 8, first, first % 2 == 0 ? config.experts : 5);
    const auto sequence = split.runner->new_sequence(8);
    CHECK(test::max_difference(split.run(*sequence, tokens, pieces), expected) < 1e-2);
    for (Runner* runner : {cpu.runner.get(), split.runner.get()}) runner->clear_figures();
    sequence->clear();
    split.run(*sequence, tokens, {1});
    cpu.run(*cpu.runner->new_sequence(8), tokens, {1});
    const StageClock& clock = split.runner->clock();
    CHECK(clock[Stage::kHostLayers].seconds > 0);
    CHECK(clock[Stage::kHostLayers].bytes > 0);
    CHECK(clock.sum().bytes == cpu.runner->clock().sum().bytes);
    CHECK(clock.sum().flops == cpu.runner->clock().sum().flops);
  }
}

TEST_CASE("split layers: a step that is stopped on either side leaves sequences to be cleared") {
  const ModelConfig& config = nano().config;
  const std::vector<int32_t> ids = test::read_ids(test::data("nano/nano.tokens.txt"));
  const Tokens tokens = Tokens(ids).first(6);
  Split split(nano(), KvType::kF32, 6, 2, 3);
  const auto sequence = split.runner->new_sequence(6);
  const Floats expected = split.run(*sequence, tokens, {6});
  for (int32_t stop = 1; stop <= config.layers; ++stop) {
    CAPTURE(stop);
    sequence->clear();
    std::vector<int32_t> told;
    const SequenceFeed feed{sequence.get(), tokens};
    const auto on_layer = [&](int32_t layers) {
      told.push_back(layers);
      return layers < stop;
    };
    CHECK(split.runner->run({&feed, 1}, LogitRows::kAll, nullptr, on_layer).empty());
    std::vector<int32_t> all(stop);
    std::iota(all.begin(), all.end(), 1);
    CHECK(told == all);
    sequence->clear();
    CHECK(split.runner->run_to_row(feed, on_layer) == nullptr);
    sequence->clear();
    CHECK(split.run(*sequence, tokens, {6}) == expected);
  }
  sequence->clear();
  LogitRow* row = split.runner->run_to_row({sequence.get(), tokens}, nullptr);
  REQUIRE(row != nullptr);
  CHECK(std::ranges::equal(row->all(), std::span(expected).last(config.vocab)));
}

TEST_CASE("split layers: one cache serves both sides, and a read may fail on either") {
  const test::TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "model.gguf";
  std::filesystem::copy_file(test::models("demo.gguf"), path);
  const TensorDir copy = open_gguf(path);
  const ModelConfig& config = demo().config;
  const std::vector<int32_t> ids = test::read_ids(test::data("demo/demo.tokens.txt"));
  const std::vector<int64_t> pieces = {6, 1, 1, 1};
  const auto open = [&] {
    return open_expert_cache(
               copy, layer_experts(demo().weights),
               {.experts = config.experts, .slots = 3 * config.experts_used, .read_ahead = 4},
               Topology::of_this_machine())
        .cache;
  };
  Split cpu(demo(), KvType::kBF16, 9, config.layers, 0, open());
  const Tokens tokens = Tokens(ids).first(9);
  const Floats expected = cpu.run(*cpu.runner->new_sequence(9), tokens, pieces);
  Split split(demo(), KvType::kBF16, 9, 2, 4, open());
  const auto sequence = split.runner->new_sequence(9);
  CHECK(test::max_difference(split.run(*sequence, tokens, pieces), expected) < 1e-2);
  const std::span<const LayerUse> uses = split.runner->cache()->layer_uses();
  for (int32_t layer = 0; layer < config.layers; ++layer) CHECK(uses[layer].uses > 0);

  const auto bytes = std::filesystem::file_size(path);
  std::set<bool> on_device;
  for (const uintmax_t left : {bytes / 4, bytes * 3 / 4}) {
    std::filesystem::resize_file(path, left);
    sequence->clear();
    CHECK(split.run(*sequence, Tokens(ids).subspan(20, 9), pieces).empty());
    const std::optional<ReadFailure> failure = split.runner->take_failure();
    REQUIRE(failure);
    on_device.insert(failure->layer >= 2);
    std::filesystem::copy_file(test::models("demo.gguf"), path,
                               std::filesystem::copy_options::overwrite_existing);
    sequence->clear();
    CHECK(test::max_difference(split.run(*sequence, tokens, pieces), expected) < 1e-2);
    CHECK_FALSE(split.runner->take_failure());
  }
  CHECK(on_device.size() == 2);
}

TEST_CASE("split layers: an engine puts on a GPU what layers pay there, and takes what it says") {
  EngineOptions options = split_options();
  const auto cpu = test::open_on_cpu(options);
  const Device* device = nullptr;
  options.open_gpu = [&] {
    FoundDevice found{make_fake_device({.memory_bytes = kMemory, .has_pages = false}), ""};
    device = found.device.get();
    return found;
  };
  for (const int32_t layers : {4, 2, 1}) {
    CAPTURE(layers);
    plan_with_layers(options, layers);
    const auto engine = Engine::open(options);
    const Plan& plan = engine->plan();
    REQUIRE(plan.placement.gpu_layers == layers);
    REQUIRE(engine->gpu() == device);
    CHECK(plan.vram.used <= *options.gpu_budget);
    CHECK(plan.predict.decode_tok_s > cpu->plan().predict.decode_tok_s);
    test::expect_sessions_alike(*engine, *cpu);
    std::vector<std::unique_ptr<Session>> sessions;
    int64_t host_kv = 0, vram_kv = 0;
    for (int s = 0; s < options.sessions; ++s) {
      const int64_t before = device->memory().free_bytes;
      sessions.push_back(engine->new_session());
      vram_kv = before - device->memory().free_bytes;
      host_kv += sessions.back()->bytes() - vram_kv;
    }
    CHECK(kMemory - device->memory().free_bytes == plan.vram.used - kContextBytes);
    CHECK(engine->memory_bytes() + host_kv == plan.ram.used);
  }
}

TEST_CASE("split layers: a plan is replayed as it was written, and refused where it is none") {
  EngineOptions options = split_options();
  const Plan plan = plan_with_layers(options, 3);
  REQUIRE(plan.placement.gpu_layers == 3);
  const auto replay = [&](const Plan& other) {
    options.plan = other;
    return Engine::open(options);
  };
  const auto engine = replay(plan);
  CHECK(engine->plan().hash() == plan.hash());
  test::expect_sessions_alike(*engine, *test::open_on_cpu(split_options()));
  const auto contains = [&](const Plan& other, const char* part) {
    return test::error_of([&] { replay(other); }).find(part) != std::string::npos;
  };
  Plan other = plan;
  other.placement.gpu_layers = 6;
  CHECK(contains(other, "places 6 of 5 layers on a GPU"));
  // An expert of a layer on the CPU.
  other = plan;
  --other.layers[0].ram_experts, ++other.layers[0].vram_experts;
  CHECK(contains(other, "doesn't place the 16 experts of each layer"));
  other = plan;
  other.placement.gpu_layers = 4;
  CHECK(contains(other, "its bytes aren't"));
}
