// The forward pass on a device: the fake one with emulated threads, or a GPU with --device cuda.
#include "model/device/forward.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/fake_device.h"
#include "model_device/runner.h"
#include "offload/store/open_cache.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;

namespace {

// Mean over rows of KL(softmax(expected) || softmax(logits)).
double mean_divergence(const Floats& expected, const Floats& logits, size_t vocab) {
  const auto log_sum = [&](const float* row) {
    double sum = 0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]));
    return std::log(sum);
  };
  double total = 0;
  for (size_t at = 0; at < expected.size(); at += vocab) {
    const double p = log_sum(&expected[at]), q = log_sum(&logits[at]);
    for (size_t i = at; i < at + vocab; ++i) {
      total += std::exp(expected[i] - p) * ((expected[i] - p) - (logits[i] - q));
    }
  }
  return total / static_cast<double>(expected.size() / vocab);
}

// All experts of prompts that the device doesn't hold go over the link; or half of them.
constexpr LinkRates kSendAll{1e9, 1, 1}, kSendHalf{1, 1, 1e9};

// Of every tenth token that was run: its streams after every block, and its picks.
void expect_golden_blocks(const Recorder& recorder) {
  const ModelConfig& config = nano().config;
  const auto hidden = test::read_array<float>(test::data("nano/nano.hidden.f32"));
  const auto picks = test::read_array<int32_t>(test::data("nano/nano.picks.i32"));
  const int64_t width = int64_t{config.streams} * config.dim;
  for (int32_t layer = -1; layer < config.layers; ++layer) {
    CAPTURE(layer);
    for (int64_t i = 0; 10 * i < recorder.tokens(); ++i) {
      const float* golden = hidden.data() + ((layer + 1) * 42 + i) * width;
      const float* own = recorder.hidden[layer + 1].data() + 10 * i * width;
      CHECK(test::max_difference({own, own + width}, {golden, golden + width}) < 1e-5);
      if (layer < 0) continue;
      const int32_t* chosen = picks.data() + (layer * 420 + 10 * i) * config.experts_used;
      CHECK(recorder.chosen[layer][10 * i] ==
            std::multiset<int32_t>(chosen, chosen + config.experts_used));
    }
  }
}

// A matrix of the same shape with made-up weights in a format that reads rounded activations.
Matrix rounding_matrix(const Matrix& like, std::vector<std::vector<unsigned char>>& memory) {
  constexpr int64_t kBlockBytes = 34;  // a scale of 2^-11 as a half float, 32 codes
  std::vector<unsigned char> bytes(like.rows * like.cols / 32 * kBlockBytes);
  uint32_t state = 1;
  for (size_t i = 0; i < bytes.size(); ++i) {
    state = state * 1664525 + 1013904223;
    bytes[i] = static_cast<unsigned char>(state >> 24);
    if (i % kBlockBytes < 2) bytes[i] = i % kBlockBytes == 0 ? 0x00 : 0x10;
  }
  memory.push_back(std::move(bytes));
  return {TensorType::kQ8_0, like.rows, like.cols, memory.back().data()};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

// From token 35 on selections cut through ties, which the goldens settle by another rule.
TEST_CASE("device: nano's logits are the golden ones, however the prompt is cut" *
          doctest::test_suite("limits")) {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 35);
  Floats golden = test::read_array<float>(test::data("nano/nano.logits.f32"));
  golden.resize(tokens.size() * nano().config.vocab);
  const int64_t most = small_limits().chunk_tokens;
  for (const int64_t chunk :
       std::set<int64_t>{std::min<int64_t>(35, most), std::min<int64_t>(6, most)}) {
    CAPTURE(chunk);
    Runner runner(nano(), 35, chunk);
    DeviceCache cache = runner.new_cache(KvType::kF32, 35);
    Recorder recorder(runner.config);
    CHECK(test::max_difference(runner.run(cache, tokens, chunk, &recorder), golden) < 1e-5);
    expect_golden_blocks(recorder);
  }
}

TEST_CASE("device: an HCA block past its window and its first entry computes what the CPU does") {
  const Model model = only_layer(nano(), 2);
  REQUIRE(model.config.kinds[0] == LayerKind::kHca);
  const auto tokens = first_tokens("nano/nano.tokens.txt", 132);
  const Floats expected = run_on_cpu(model, KvType::kF32, tokens);
  Runner runner(model, 132);
  DeviceCache cache = runner.new_cache(KvType::kF32, 132);
  CHECK(test::max_difference(runner.run(cache, tokens, 50), expected) < 1e-5);
}

TEST_CASE("device: compressed rows in the host's memory give the same, to the bit" *
          doctest::test_suite("limits")) {
  for (Model model : {static_cast<const Model&>(nano()), only_layer(demo(), 2)}) {
    model.config.index_top_k = 2;  // of four at most
    const auto tokens = first_tokens("nano/nano.tokens.txt", 16);
    for (const KvType type : {KvType::kF32, KvType::kBF16}) {
      const Limits limits = small_limits(6);
      Runner runner(model, 16, 5, limits);
      DeviceCache cache = runner.new_cache(type, 16);
      DeviceCache own(*runner.device, {model.config, type, 16, limits, EntriesIn::kHost});
      REQUIRE(own.pinned_bytes() > 0);
      for (const int64_t at : {0, 6, 12, 13}) {
        const auto some = std::span(tokens).subspan(at, at < 12 ? 6 : 1);
        CHECK(runner.run(own, some, 6) == runner.run(cache, some, 6));
      }
    }
  }
}

TEST_CASE("device: a CSA block selects what the CPU does, in one group of rows or in many" *
          doctest::test_suite("limits")) {
  Model model = only_layer(demo(), 2);
  REQUIRE(model.config.kinds[0] == LayerKind::kCsa);
  model.config.index_top_k = 4;
  const auto tokens = first_tokens("demo/demo.tokens.txt", 28);
  const Floats expected = run_on_cpu(model, KvType::kF32, tokens);
  Limits limits = small_limits(8);  // so few rows are rounded as on the CPU
  Runner runner(model, 28, 2, limits);
  DeviceCache cache = runner.new_cache(KvType::kF32, 28);
  const Floats logits = runner.run(cache, tokens, 8);
  CHECK(test::max_difference(logits, expected) < 1e-2);
  limits.device_index_scores = 30;
  Runner grouped(model, 28, 3, limits);
  DeviceCache other = grouped.new_cache(KvType::kF32, 28);
  CHECK(grouped.run(other, tokens, 8) == logits);
}

TEST_CASE("device: hyper-connections of a block format round the streams") {
  Model model = only_layer(demo(), 0);
  std::vector<std::vector<unsigned char>> memory;
  LayerWeights& layer = model.weights.layers[0];
  for (Matrix* fn :
       {&layer.attention_hyper.fn, &layer.moe_hyper.fn, &model.weights.head_hyper.fn}) {
    *fn = rounding_matrix(*fn, memory);
  }
  CHECK(rounds_streams(model.weights));
  const auto tokens = first_tokens("demo/demo.tokens.txt", 6);
  const Floats expected = run_on_cpu(model, KvType::kF32, tokens);
  Runner runner(model, 6, 7);
  DeviceCache cache = runner.new_cache(KvType::kF32, 6);
  CHECK(test::max_difference(runner.run(cache, tokens, 6), expected) < 1e-2);
}

TEST_CASE("device: weights of two to four bits compute what the CPU does") {
  const Loaded small(test::data("demo/demo-q2_k.gguf"));
  const auto tokens = first_tokens("demo/demo.tokens.txt", 4);
  const Floats expected = run_on_cpu(small, KvType::kBF16, tokens);
  Runner runner(small, 4);
  DeviceCache cache = runner.new_cache(KvType::kBF16, 4);
  CHECK(test::max_difference(runner.run(cache, tokens, 4), expected) < 1e-2);
}

TEST_CASE("device: the demo model computes what the CPU does, as far as rounding allows") {
  const auto tokens = first_tokens("demo/demo.tokens.txt", 10);
  const Floats expected = run_on_cpu(demo(), KvType::kBF16, tokens);
  Runner runner(demo(), 10);
  DeviceCache cache = runner.new_cache(KvType::kBF16, 10);
  const Floats logits = runner.run(cache, tokens, 8);
  CHECK(test::max_difference(logits, expected) < 1e-2);
}

TEST_CASE("device: a long prompt is multiplied in bfloat16, which keeps its distributions") {
  const auto tokens = first_tokens("demo/demo.tokens.txt", 72);
  Floats golden = test::read_array<float>(test::data("demo/demo.logits.f32"));
  golden.resize(tokens.size() * demo().config.vocab);
  Runner runner(demo(), 72, 9, small_limits(72));
  DeviceCache cache = runner.new_cache(KvType::kBF16, 72);
  // Eight bits a value miss this, in the experts alone too.
  CHECK(mean_divergence(golden, runner.run(cache, tokens, 72), demo().config.vocab) < 1e-4);
}

TEST_CASE(
    "device: the size of chunks changes no bit of a prompt, and nearly none against tokens "
    "that come one by one" *
    doctest::test_suite("limits")) {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 10);
  Runner runner(nano(), 10, 4, small_limits(10));
  DeviceCache cache = runner.new_cache(KvType::kF32, 10);
  const Floats whole = runner.run(cache, tokens, 10);
  cache.position = 0;
  CHECK(runner.run(cache, tokens, 4) == whole);
  cache.position = 0;
  CHECK(test::max_difference(runner.run(cache, tokens, 1), whole) < 1e-5);
  cache.position = 0;
  const DeviceSegment segment{&cache, tokens};
  const auto last = runner.forward.run({&segment, 1}, LogitRows::kLast);
  CHECK(std::ranges::equal(last, std::span(whole).last(runner.config.vocab)));
}

TEST_CASE("device: a row that decodes does not depend on its neighbours, which decode with it") {
  const auto tokens = first_tokens("demo/demo.tokens.txt", 9);
  const auto others = std::span(tokens).last(4);
  const Model model = only_layer(demo(), 2);
  Runner runner(model, 9, 5, small_limits(9));
  const int64_t vocab = runner.config.vocab;
  DeviceCache first = runner.new_cache(KvType::kBF16, 9),
              second = runner.new_cache(KvType::kBF16, 9);
  const Floats expected = runner.run(first, tokens, 1), other = runner.run(second, others, 1);
  first.position = second.position = 0;
  // A prompt beside single tokens of another sequence, whose arithmetic it then has.
  for (int64_t at = 0; at < 4; ++at) {
    const auto prompt = std::span(tokens).subspan(2 * at, at == 3 ? 3 : 2);
    const DeviceSegment segments[] = {{&second, others.subspan(at, 1)}, {&first, prompt}};
    const auto logits = runner.forward.run(segments, LogitRows::kAll);
    REQUIRE(std::ssize(logits) == (1 + std::ssize(prompt)) * vocab);
    CHECK(std::equal(logits.begin(), logits.begin() + vocab, other.begin() + at * vocab));
    CHECK(std::equal(logits.begin() + vocab, logits.end(), expected.begin() + 2 * at * vocab));
  }
  CHECK(first.position == 9);
  CHECK(second.position == 4);
}

// Lists of rows long enough to be cut into parts, which only a step of prompts alone leaves whole.
TEST_CASE("device: a prompt beside a token that decodes is computed as if it decoded") {
  const Model model = only_layer(demo(), 0);
  const auto tokens = first_tokens("demo/demo.tokens.txt", 30);
  Runner runner(model, 30, 8, small_limits(10));
  DeviceCache first = runner.new_cache(KvType::kF32, 30);
  DeviceCache second = runner.new_cache(KvType::kF32, 30);
  const Floats expected = runner.run(first, tokens, 1);
  first.position = 21;
  const DeviceSegment segments[] = {{&second, std::span(tokens).first(1)},
                                    {&first, std::span(tokens).last(9)}};
  const auto logits = runner.forward.run(segments, LogitRows::kAll);
  const int64_t vocab = runner.config.vocab;
  CHECK(std::ranges::equal(logits.first(vocab), std::span(expected).first(vocab)));
  CHECK(std::ranges::equal(logits.last(9 * vocab), std::span(expected).last(9 * vocab)));
}

TEST_CASE("device: a run can be stopped between layers, and steps without logits follow closely") {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 4);
  Runner runner(nano(), 4, 6);
  DeviceCache cache = runner.new_cache(KvType::kF32, 4);
  const Floats expected = runner.run(cache, tokens, 1);
  cache.position = 0;
  std::vector<int32_t> done;
  const auto stop = [&](int32_t layers) {
    done.push_back(layers);
    return layers < 2;
  };
  const DeviceSegment stopped{&cache, std::span(tokens).last(1)};
  CHECK(runner.forward.run({&stopped, 1}, LogitRows::kLast, nullptr, stop).empty());
  CHECK(done == std::vector<int32_t>{1, 2});
  CHECK(cache.position == 0);
  for (size_t at = 0; at < 3; ++at) {
    const DeviceSegment next{&cache, std::span(tokens).subspan(at, 1)};
    CHECK(runner.forward.run({&next, 1}, LogitRows::kNone).empty());
  }
  done.clear();
  const DeviceSegment next{&cache, std::span(tokens).last(1)};
  const auto go_on = [&](int32_t layers) {
    done.push_back(layers);
    return true;
  };
  const auto logits = runner.forward.run({&next, 1}, LogitRows::kLast, nullptr, go_on);
  CHECK(done == std::vector<int32_t>{1, 2, 3, 4});
  CHECK(std::ranges::equal(logits, std::span(expected).last(runner.config.vocab)));
}

TEST_CASE("device: a row that stays there is the one that is brought, replayed or not") {
  const Model model = only_layer(nano(), 0);
  const auto tokens = first_tokens("nano/nano.tokens.txt", 5);
  Runner runner(model, 5, 12);
  DeviceCache cache = runner.new_cache(KvType::kF32, 5);
  const Floats expected = runner.run(cache, tokens, 1);
  const int64_t vocab = runner.config.vocab;
  cache.position = 0;
  for (int64_t at = 0; at < 5; ++at) {
    const DeviceSegment segment{&cache, std::span(tokens).subspan(at, 1)};
    LogitRow* row = runner.forward.run_to_row(segment);
    REQUIRE(row != nullptr);
    const auto own = std::span(expected).subspan(at * vocab, vocab);
    CHECK(row->likeliest() == std::ranges::max_element(own) - own.begin());
    CHECK(std::ranges::equal(row->block(0), own.first(row->block(0).size())));
    if (at == 4) CHECK(std::ranges::equal(row->all(), own));
  }
  CHECK(cache.position == 5);
  cache.position = 0;
  const DeviceSegment stopped{&cache, std::span(tokens).first(1)};
  CHECK(runner.forward.run_to_row(stopped, [](int32_t) { return false; }) == nullptr);
}

TEST_CASE("device: experts it does not hold are computed by the host, with the same logits") {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 11);
  const ModelConfig& config = nano().config;
  Runner whole(nano(), 11);
  DeviceCache cache = whole.new_cache(KvType::kF32, 11);
  const Floats expected = whole.run(cache, tokens, 6);
  struct Split {
    std::vector<int32_t> held;
    int64_t chunk;
  };
  const std::vector<int32_t> none(config.layers, 0), three(config.layers, 3);
  const std::vector<int32_t> mixed = {config.experts, 1, 0, config.experts - 1};
  REQUIRE(std::ssize(mixed) == config.layers);
  uint64_t seed = 5;
  for (const auto& [held, chunk] : {Split{none, 6}, Split{three, 1}, Split{mixed, 6}}) {
    CAPTURE(seed);
    Runner runner(nano(), 11, seed++, small_limits(), held);
    DeviceCache own = runner.new_cache(KvType::kF32, 11);
    Recorder recorder(config);
    CHECK(test::max_difference(runner.run(own, tokens, chunk, &recorder), expected) < 1e-5);
    expect_golden_blocks(recorder);
  }
}

// The sums are all the device's then, in the same order.
TEST_CASE("device: what sends all its other experts has the bits of the whole model's") {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 12);
  const ModelConfig& config = nano().config;
  Limits limits = small_limits(12);
  Runner whole(nano(), 12, 1, limits);
  DeviceCache cache = whole.new_cache(KvType::kF32, 12);
  const Floats expected = whole.run(cache, tokens, 12);
  struct Split {
    std::vector<int32_t> held;
    int32_t slots;
    int64_t chunk;
  };
  const std::vector<int32_t> none(config.layers, 0), three(config.layers, 3);
  const std::vector<int32_t> mixed = {config.experts, 1, 0, config.experts - 1};
  uint64_t seed = 20;
  cache.position = 0;
  const Floats one_by_one = whole.run(cache, tokens, 1);
  for (const auto& [held, slots, chunk] :
       {Split{none, 2, 12}, Split{none, 4, 6}, Split{three, 4, 12}, Split{mixed, 2, 12},
        Split{mixed, 2, 1}, Split{none, 4, 1}}) {
    CAPTURE(seed);
    limits.experts_sent = slots;
    Runner runner(nano(), 12, seed++, limits, held, kSendAll);
    DeviceCache own = runner.new_cache(KvType::kF32, 12);
    CHECK(runner.run(own, tokens, chunk) == (chunk == 1 ? one_by_one : expected));
  }
}

TEST_CASE("device: experts are computed on both sides, in prompts and token by token") {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 15);
  const ModelConfig& config = nano().config;
  Runner whole(nano(), 15);
  DeviceCache cache = whole.new_cache(KvType::kF32, 15);
  const Floats expected = whole.run(cache, tokens, 14);
  for (const int32_t slots : {2, 4}) {
    CAPTURE(slots);
    Limits limits = small_limits(14);
    limits.experts_sent = slots;
    Runner runner(nano(), 15, slots, limits, std::vector<int32_t>(config.layers, 3), kSendHalf);
    DeviceCache own = runner.new_cache(KvType::kF32, 15);
    Recorder recorder(config);
    CHECK(test::max_difference(runner.run(own, tokens, 14, &recorder), expected) < 1e-5);
    expect_golden_blocks(recorder);
    // Layers of one step send, others don't, and the next step differs: all of it is replayed.
    own.position = 0;
    CHECK(test::max_difference(runner.run(own, tokens, 1), expected) < 1e-5);
  }
}

// Nothing is pinned here, so the fake device counts the copies: three an expert.
TEST_CASE("device: experts of a prompt are sent out of a cache's slots, as many as it can lend") {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 35);
  const ModelConfig& config = nano().config;
  Limits limits = small_limits(35);
  limits.experts_sent = 4;
  Runner whole(nano(), 35, 1, limits);
  DeviceCache cache = whole.new_cache(KvType::kF32, 35);
  const Floats expected = whole.run(cache, tokens, 35);
  const int64_t pairs = int64_t{config.layers} * config.experts;
  for (const int64_t slots : {2 * pairs, pairs / 2, int64_t{config.experts_used}, int64_t{1}}) {
    CAPTURE(slots);
    OpenCache open = open_expert_cache(nano().dir, layer_experts(nano().weights),
                                       {.experts = config.experts, .slots = slots, .read_ahead = 4},
                                       Topology::of_this_machine());
    Runner runner(nano(), 35, 30 + slots, limits, std::vector<int32_t>(config.layers, 0), kSendAll,
                  std::move(open.cache));
    const auto copies = [&] {
      return test::device() == "fake" ? counts(*runner.device).unpinned_copies : 0;
    };
    const int64_t at_first = copies();
    DeviceCache own = runner.new_cache(KvType::kF32, 35);
    // All come from the disk at first, for the device as for the host.
    const Floats cold = runner.run(own, tokens, 35);
    CHECK(test::max_difference(cold, expected) < 1e-5);
    if (slots == 2 * pairs) CHECK(cold == expected);
    if (test::device() == "fake") CHECK((copies() > at_first) == (slots > 1));
    own.position = 0;
    const int64_t before = copies();
    const Floats again = runner.run(own, tokens, 35);
    CHECK(test::max_difference(again, expected) < 1e-5);
    if (slots == 2 * pairs) CHECK(again == expected);  // all sums are the device's
    if (test::device() != "fake") continue;
    const int64_t sent = (copies() - before) / kExpertParts;
    CHECK(sent <= config.layers * std::min<int64_t>(slots / 2, config.experts));
    CHECK((sent > 0) == (slots > 1));
    // Tokens that decode leave the loans to come back.
    own.position = 0;
    runner.run(own, std::span(tokens).first(3), 1);
  }
}

TEST_CASE("device: experts move from the disk to it while tokens come, with the same logits") {
  const auto tokens = first_tokens("nano/nano.tokens.txt", 35);
  const ModelConfig& config = nano().config;
  Runner whole(nano(), 35);
  DeviceCache cache = whole.new_cache(KvType::kF32, 35);
  const Floats expected = whole.run(cache, tokens, 1);
  for (const int64_t slots : {2, 8, 16}) {
    CAPTURE(slots);
    OpenCache open = open_expert_cache(nano().dir, layer_experts(nano().weights),
                                       {.experts = config.experts, .slots = slots, .read_ahead = 4},
                                       Topology::of_this_machine());
    Runner runner(nano(), 35, 60 + slots, small_limits(35), std::vector<int32_t>(config.layers, 2),
                  kSendHalf, std::move(open.cache));
    DeviceCache own = runner.new_cache(KvType::kF32, 35);
    for (const int64_t chunk : {1, 12}) {
      own.position = 0;
      CHECK(test::max_difference(runner.run(own, tokens, chunk), expected) < 1e-5);
    }
    CHECK((runner.tier.stats().admissions > 0) == (slots > 2));
  }
}

TEST_CASE("device: experts that are sent are multiplied in bfloat16, as those that are held") {
  const auto tokens = first_tokens("demo/demo.tokens.txt", 72);
  const Model model = only_layer(demo(), 2);
  Limits limits = small_limits(72);
  limits.experts_sent = 4;
  Runner whole(model, 72, 10, limits), runner(model, 72, 11, limits, {3}, kSendAll);
  DeviceCache cache = whole.new_cache(KvType::kBF16, 72), own = runner.new_cache(KvType::kBF16, 72);
  CHECK(runner.run(own, tokens, 72) == whole.run(cache, tokens, 72));
}

int64_t csa_layers(const ModelConfig& config) {
  return std::ranges::count(config.kinds, LayerKind::kCsa);
}

TEST_CASE("device: bytes are known before they are taken" * doctest::test_suite("limits")) {
  const Limits limits = small_limits();
  for (const Model* model :
       {static_cast<const Model*>(&nano()), static_cast<const Model*>(&demo())}) {
    const ModelConfig& config = model->config;
    const std::unique_ptr<Device> device = make_fake_device();
    int64_t free_bytes = device->memory().free_bytes;
    const auto taken = [&] {
      const int64_t before = free_bytes;
      free_bytes = device->memory().free_bytes;
      return before - free_bytes;
    };
    const DeviceWeights weights = upload_weights(*device, config, model->weights);
    CHECK(taken() == device_weight_bytes(config, model->weights));
    const auto layers = layer_experts(model->weights);
    for (const int32_t held : {0, 3, config.experts}) {
      const std::vector<int32_t> each(config.layers, held);
      VramTier tier(*device, layers, config.experts, each);
      CHECK(taken() == vram_tier_bytes(layers, config.experts, each));
      CHECK(tier.bytes() == vram_tier_bytes(layers, config.experts, each));
      free_bytes += tier.bytes();
    }
    VramTier tier(*device, layers, config.experts, all_experts(config));
    free_bytes -= tier.bytes();
    for (const KvType type : {KvType::kF32, KvType::kBF16}) {
      const size_t page = device->page_bytes();
      const DeviceCache cache(*device, {config, type, 300, limits});
      CHECK(cache.bytes() == device_cache_bytes({config, type, 300, limits}, page));
      CHECK(taken() == cache.bytes());
      const int64_t pinned_before = counts(*device).pinned_bytes;
      const DeviceCacheShape shape{config, type, 300, limits, EntriesIn::kHost};
      const DeviceCache in_host(*device, shape);
      CHECK(taken() == device_cache_bytes(shape, page));
      CHECK(in_host.bytes() == device_cache_bytes(shape, page));
      CHECK(counts(*device).pinned_bytes - pinned_before == in_host.pinned_bytes());
      CHECK(in_host.pinned_bytes() == DeviceCacheLayout(shape).pinned_bytes);
      CHECK(in_host.pinned_bytes() ==
            csa_layers(config) * 75 * config.head_dim * kv_value_bytes(type));
      free_bytes += in_host.bytes() + cache.bytes();
    }
    const int64_t planned =
        device_forward_bytes(config, device->kernels(), traits_of(model->weights), 300, limits);
    {
      const DeviceForward forward(
          {*device, config, weights, model->weights.embedding, tier, nullptr}, 300, limits);
      CHECK(taken() == planned);
      CHECK(forward.bytes() == planned);
    }
    free_bytes += planned;
    const Workers workers{1};
    ExpertStore store(layers, config.experts, config.experts_used, limits.chunk_tokens);
    HostExperts host(config, choose_kernels("avx2"), workers, limits, store);
    const int64_t pinned = counts(*device).pinned_bytes;
    const DeviceForward forward({*device, config, weights, model->weights.embedding, tier, &host,
                                 ExpertSending{layers, kSendAll}},
                                300, limits);
    CHECK(taken() == planned + expert_stream_bytes(layers, config.experts, limits));
    CHECK(forward.bytes() == planned + expert_stream_bytes(layers, config.experts, limits));
    CHECK(forward.pinned_bytes() ==
          device_forward_pinned_bytes(config, traits_of(model->weights), limits));
    CHECK(counts(*device).pinned_bytes - pinned == forward.pinned_bytes());
  }
}

TEST_CASE("device: what does not fit or has no kernels is named" * doctest::test_suite("limits")) {
  const Limits limits = small_limits();
  const ModelConfig& config = nano().config;
  const int64_t weight_bytes = device_weight_bytes(config, nano().weights);
  {
    const auto device = make_fake_device({.memory_bytes = weight_bytes - 16});
    const std::string what = error_of([&] { upload_weights(*device, config, nano().weights); });
    CHECK(contains(what, "the weights: fake GPU: "));
    CHECK(contains(what, "--gpu-budget"));
  }
  const auto layers = layer_experts(nano().weights);
  const int64_t expert_bytes = vram_tier_bytes(layers, config.experts, all_experts(config));
  const auto device = make_fake_device({.memory_bytes = weight_bytes + expert_bytes + (1 << 20)});
  const DeviceWeights weights = upload_weights(*device, config, nano().weights);
  CHECK(contains(error_of([&] {
                   DeviceCache(*device, {config, KvType::kF32, 1 << 20, limits});
                 }),
                 "a session's cache: fake GPU: "));
  {
    const auto pinning = make_fake_device({.pinned_buffer_bytes = 1 << 10});
    const std::string what = error_of([&] {
      DeviceCache(*pinning, {config, KvType::kF32, 1 << 12, limits, EntriesIn::kHost});
    });
    CHECK(contains(what, "a session's compressed rows: fake GPU: "));
    CHECK(contains(what, "--ctx"));
  }
  {
    VramTier tier(*device, layers, config.experts, all_experts(config));
    const DeviceModel model{*device, config, weights, nano().weights.embedding, tier, nullptr};
    CHECK(contains(error_of([&] { DeviceForward(model, 1 << 24, limits); }),
                   "activations: fake GPU: "));
  }
  Model experts_alone = nano();
  experts_alone.weights.layers[1].moe.routed.stacks.down.type = TensorType::kI32;
  CHECK(contains(error_of([&] { upload_weights(*device, config, experts_alone.weights); }),
                 "stored as I32 have no GPU kernel"));
  Model integers = nano();
  integers.weights.layers[0].attention.q_a.type = TensorType::kI32;
  CHECK(contains(error_of([&] { upload_weights(*device, config, integers.weights); }),
                 "stored as I32 have no GPU kernel"));
}
