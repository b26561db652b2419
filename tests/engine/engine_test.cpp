// Sessions and answers on the small real models.
#include <doctest/doctest.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "engine/generate.h"
#include "model/synth.h"
#include "planned.h"
#include "support.h"
#include "text/chat.h"
#include "text/chat_parser.h"

using namespace hearth;

namespace {

std::unique_ptr<Engine> open_demo(int64_t context = 0) {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.limits = test::limits();
  options.chunk_tokens = test::limits().chunk_tokens;
  options.context = context;
  return Engine::open(options);
}

struct Told {
  std::string reasoning, content;
  StopReason stop_reason;
};

Told ask(Engine& engine, const std::string& question, bool thinking) {
  const ChatTokens& tokens = *engine.chat().tokens;
  const Prompt prompt = encode_conversation(tokens, {{.role = Role::kUser, .content = question}},
                                            {.thinking = thinking});
  ChatParser parser(engine.tokenizer(), tokens, opens_reasoning(prompt, tokens));
  Told told;
  const auto take = [&](const ChatDelta& delta) {
    told.reasoning += delta.reasoning;
    told.content += delta.content;
  };
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = 400;
  options.end_tokens = {engine.tokenizer().eos()};
  options.on_token = [&](int32_t token) {
    take(parser.feed(token));
    return !parser.has_ended();
  };
  const auto session = engine.new_session();
  told.stop_reason =
      generate(engine, *session, to_ids(prompt, engine.tokenizer()), options).stop_reason;
  take(parser.finish());
  return told;
}

}  // namespace

TEST_CASE("the demo model recites what it knows by heart, thinking or not, and stops by itself") {
  const auto engine = open_demo();
  struct Case {
    std::string question, answer;
  };
  const std::vector<Case> cases = {
      {"Recite Psalms 23:1.", "The LORD is my shepherd; I shall not want."},
      {"Recite Psalms 46:10.",
       "Be still, and know that I am God: I will be exalted among the heathen, I will be exalted "
       "in "
       "the earth."},
  };
  for (const Case& c : cases) {
    for (const bool thinking : {false, true}) {
      const Told told = ask(*engine, c.question, thinking);
      CHECK(told.content == c.answer);
      CHECK(told.stop_reason == StopReason::kEnd);
      CHECK(told.reasoning.empty() != thinking);
    }
  }
}

TEST_CASE("every recitation of the shared list") {
  if (!test::has_shared()) return test::skip("recitations.json");
  const auto engine = open_demo();
  for (const auto& item :
       nlohmann::json::parse(test::read_text(test::shared("models/demo/recitations.json")))) {
    for (const bool thinking : {false, true}) {
      if (!item[thinking ? "by_heart_thinking" : "by_heart"]) continue;
      CAPTURE(thinking);
      const Told told = ask(*engine, item["ask"], thinking);
      CHECK(told.content == item["answer"].get<std::string>());
      CHECK(told.stop_reason == StopReason::kEnd);
    }
  }
}

TEST_CASE(
    "a prompt that goes on where the session stands feeds only what is new, with the same answer") {
  const auto engine = open_demo(200);
  const std::vector<int32_t> text =
      engine->tokenizer().encode("In the beginning God created the heaven", Specials::kAsText);
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = 8;
  const auto session = engine->new_session();
  const Generated first = generate(*engine, *session, text, options);
  CHECK(first.prefill_tokens == std::ssize(text));
  CHECK(first.stop_reason == StopReason::kLength);

  std::vector<int32_t> longer = text;
  longer.insert(longer.end(), first.tokens.begin(), first.tokens.end());
  const Generated continued = generate(*engine, *session, longer, options);
  CHECK(continued.prefill_tokens == 1);  // the last token of the first answer was not fed yet
  const auto fresh_session = engine->new_session();
  CHECK(generate(*engine, *fresh_session, longer, options).tokens == continued.tokens);

  // Another prompt starts anew.
  const std::vector<int32_t> other(text.begin() + 1, text.end());
  CHECK(generate(*engine, *session, other, options).prefill_tokens == std::ssize(other));
}

#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // which take memory of their own
TEST_CASE(
    "the system clears scratch memory and cache rows while a model is loaded, not in a prompt") {
  const auto resident_bytes = [] {
    std::istringstream statm(test::read_text("/proc/self/statm"));
    int64_t all = 0, resident = 0;
    statm >> all >> resident;
    return resident * ::sysconf(_SC_PAGESIZE);
  };
  const auto engine = open_demo(1024);
  const int64_t chunk = engine->chunk_tokens(), loaded = resident_bytes();
  const auto session = engine->new_session();
  const int64_t begun = resident_bytes();
  CHECK(begun - loaded >= session->bytes() * chunk / 1024 / 2);
  session->feed(std::vector<int32_t>(chunk, 7));
  constexpr int64_t kOfOthers = 2 << 20;  // stacks, what the program keeps of its own
  CHECK(resident_bytes() - begun < engine->plan().scratch_bytes / 16 + kOfOthers);
}
#endif

TEST_CASE("limits: the context ends an answer, a prompt beyond it is refused and changes nothing") {
  const auto engine = open_demo(16);
  const std::vector<int32_t> text =
      engine->tokenizer().encode("And God said, Let there be", Specials::kAsText);
  REQUIRE(text.size() < 16);
  GenerateOptions options;
  options.sampling.temperature = 0;
  const auto session = engine->new_session();
  const Generated result = generate(*engine, *session, text, options);
  CHECK(result.stop_reason == StopReason::kLength);
  CHECK(session->tokens().size() == 16);
  CHECK(text.size() + result.tokens.size() == 17);  // the last one was sampled, not fed

  CHECK_THROWS_AS(session->feed(std::vector<int32_t>{1}), Error);
  CHECK_THROWS_AS(generate(*engine, *session, {}, options), Error);
  session->clear();
  CHECK_THROWS_AS(session->feed(std::vector<int32_t>(17, 5)), Error);
  CHECK_THROWS_AS(session->feed(std::vector<int32_t>{5, 1 << 30}), Error);
  CHECK(session->tokens().empty());
}

TEST_CASE("callbacks can stop the prompt and the answer") {
  const auto engine = open_demo(600);
  const std::vector<int32_t> text(550, 40);
  const auto session = engine->new_session();
  GenerateOptions options;
  options.on_prompt = [](int64_t, int64_t) { return false; };
  const Generated stopped = generate(*engine, *session, text, options);
  CHECK(stopped.stop_reason == StopReason::kCaller);
  CHECK(stopped.tokens.empty());
  CHECK(session->tokens().empty());

  options.on_prompt = nullptr;
  options.on_token = [](int32_t) { return false; };
  CHECK(generate(*engine, *session, text, options).tokens.size() == 1);
}

TEST_CASE("options out of range are usage errors") {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  const auto refuses = [](const EngineOptions& bad) {
    try {
      Engine::open(bad);
      return false;
    } catch (const Error& error) {
      return error.kind() == Error::Kind::kUsage;
    }
  };
  options.context = int64_t{1} << 40;
  CHECK(refuses(options));
  options.context = 0;
  options.isa = "sse";
  CHECK(refuses(options));
  options.isa = "";
  options.threads = -1;
  CHECK(refuses(options));
}

TEST_CASE("the plan knows every byte that is then taken") {
  for (const char* name : {"demo.gguf", "nano"}) {
    for (const KvType kv : {KvType::kF32, KvType::kBF16}) {
      CAPTURE(name);
      EngineOptions options;
      options.model =
          name == std::string("nano") ? test::data("nano/nano.gguf") : test::models(name);
      options.kv = kv;
      options.context = 700;
      options.sessions = 3;
      options.threads = 3;
      options.limits = test::limits();
      options.limits.logit_rows = 5;
      options.chunk_tokens = test::limits().chunk_tokens == 1 ? 1 : 0;
      const auto engine = Engine::open(options);
      REQUIRE(engine->plan().fits());
      int64_t taken = engine->memory_bytes();
      std::vector<std::unique_ptr<Session>> sessions;
      for (int i = 0; i < options.sessions; ++i) {
        sessions.push_back(engine->new_session());
        taken += sessions.back()->bytes();
      }
      CHECK(taken == engine->plan().total_bytes());
      CHECK(taken == engine->plan().ram.used);
    }
  }
}

// Logits of a prompt, then of tokens one by one, under a budget; empty where the engine refuses it.
struct Budgeted {
  bool streams = false;
  int64_t slots = 0;
  std::vector<float> logits;
};

Budgeted run_with_budget(EngineOptions options, std::optional<int64_t> budget) {
  options.ram_budget = budget;
  std::unique_ptr<Engine> engine;
  try {
    engine = Engine::open(options);
  } catch (const Error&) {
    return {};
  }
  Budgeted result;
  if (const ExpertCache* cache = engine->cache()) result = {true, cache->slots(), {}};
  const auto session = engine->new_session();
  CHECK(engine->memory_bytes() + session->bytes() == engine->plan().ram.used);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 90; ++i) tokens.push_back(5 + i * i % 1500);
  const auto take = [&](std::span<const float> logits) {
    result.logits.insert(result.logits.end(), logits.begin(), logits.end());
  };
  take(session->feed(std::span(tokens).first(70)));
  for (int32_t i = 70; i < 90; ++i) take(session->feed(std::span(tokens).subspan(i, 1)));
  return result;
}

TEST_CASE("under any budget that is enough the logits are the same, and bytes are as planned") {
  for (const auto& model : {test::models("demo.gguf"), test::data("demo/demo-q2_k.gguf")}) {
    CAPTURE(model.string());
    EngineOptions options;
    options.model = model;
    options.context = 200;
    options.threads = 2;
    options.limits = test::limits();
    options.chunk_tokens = test::limits().chunk_tokens == 1 ? 1 : 40;
    const Budgeted whole = run_with_budget(options, std::nullopt);
    REQUIRE(!whole.streams);
    REQUIRE(!whole.logits.empty());
    int streamed = 0;
    int64_t least = INT64_MAX;
    for (int64_t budget = int64_t{110} << 20; budget > 0; budget -= int64_t{1} << 20) {
      const Budgeted part = run_with_budget(options, budget);
      if (part.logits.empty()) break;
      CHECK(part.logits == whole.logits);
      streamed += part.streams;
      if (part.streams) least = std::min(least, part.slots);
    }
    CHECK(streamed >= 4);
    CHECK(least < 20);
  }
}

// Which experts each layer's tokens picked.
class PickCounter : public ForwardObserver {
 public:
  PickCounter(int32_t layers, int32_t experts, int32_t used)
      : counts(static_cast<size_t>(layers) * experts), experts_(experts), used_(used) {}
  void streams(int32_t, const float*, int64_t, int64_t) override {}
  void picks(int32_t layer, const int32_t* picks, int64_t n) override {
    for (int64_t i = 0; i < n * used_; ++i) ++counts[layer * experts_ + picks[i]];
  }
  std::vector<int64_t> counts;  // [layers * experts]

 private:
  const int32_t experts_, used_;
};

// Share of `counts` that the `held` keys of the largest `learned` have.
double share_of_most_frequent(const std::vector<int64_t>& learned, int64_t held,
                              const std::vector<int64_t>& counts) {
  std::vector<size_t> order(learned.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater(), [&](size_t key) { return learned[key]; });
  int64_t served = 0, all = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    all += counts[order[i]];
    if (std::cmp_less(i, held)) served += counts[order[i]];
  }
  return static_cast<double>(served) / static_cast<double>(all);
}

SynthShape skewed_shape() {
  SynthShape shape = flash_shape();
  shape.name = "skewed";
  shape.layers = 4;
  shape.dim = shape.q_rank = 256;
  shape.heads = shape.index_heads = 4;
  shape.head_dim = 64;
  shape.rope_dim = shape.window = 16;
  shape.output_groups = 2;
  shape.output_rank = 128;
  shape.index_dim = 32;
  shape.index_top_k = 8;
  shape.experts = 64;
  shape.experts_used = 4;
  shape.expert_dim = 256;
  shape.vocab = 2304;
  shape.context = 4096;
  return shape;
}

TEST_CASE("where a text changes its subject the cache follows; a list of the best doesn't") {
  const test::TemporaryFolder folder;
  EngineOptions options;
  options.model = folder.path() / "skewed.gguf";
  SynthOptions synth;
  synth.shape = skewed_shape();
  synth.vocabulary = test::models("demo.gguf");
  synth.skew = 0.6;
  synth.out = options.model;
  write_synth(synth);
  options.context = 600;
  options.threads = 1;
  options.limits = test::limits();
  options.chunk_tokens = 1;
  options.ram_budget = test::plan_of(options).ram.used + (int64_t{80} << 20);
  while (test::slots_of(test::plan_of(options)) > 64) *options.ram_budget -= 1 << 20;
  const auto engine = Engine::open(options);
  const int64_t slots = engine->cache()->slots();
  const auto session = engine->new_session();
  std::mt19937 random(3);
  // Tokens of one of the ranges that a skewed model's vocabulary is cut into.
  const auto decode = [&](int32_t range, int tokens) {
    const int32_t size = synth.shape.vocab / kSynthTokenRanges;
    PickCounter counter(synth.shape.layers, synth.shape.experts, synth.shape.experts_used);
    for (int i = 0; i < tokens; ++i) {
      const std::vector<int32_t> token = {range * size + static_cast<int32_t>(random() % size)};
      const Feed feed{session.get(), token};
      engine->step({&feed, 1}, LogitRows::kNone, &counter);
    }
    return counter.counts;
  };
  const std::vector<int64_t> before = decode(1, 250);
  decode(kSynthTokenRanges - 2, 50);
  engine->clear_figures();
  const std::vector<int64_t> after = decode(kSynthTokenRanges - 2, 250);
  const double followed = engine->cache()->stats().hit_rate();
  const double listed = share_of_most_frequent(before, slots, after);
  MESSAGE(slots, " of 256 experts held serve ", followed, ", the best list of before ", listed);
  CHECK(followed > listed + 0.10);
}

TEST_CASE("a model file that shrinks fails the request, with a message, and the engine goes on") {
  const test::TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "model.gguf";
  std::filesystem::copy_file(test::models("demo.gguf"), path);
  EngineOptions options;
  options.model = path;
  options.context = 100;
  options.threads = 2;
  options.limits = test::limits();
  options.chunk_tokens = test::limits().chunk_tokens == 1 ? 1 : 40;
  options.ram_budget = int64_t{110} << 20;
  while (test::slots_of(test::plan_of(options)) >= 40) *options.ram_budget -= 1 << 20;
  const auto engine = Engine::open(options);
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9, 10, 11, 12};
  const auto session = engine->new_session();
  const auto logits_of = [&] {
    session->clear();
    const auto logits = session->feed(tokens);
    return std::vector<float>(logits.begin(), logits.end());
  };
  const std::vector<float> before = logits_of();
  const auto bytes = std::filesystem::file_size(path);
  // Enough is left for the header alone.
  std::filesystem::resize_file(path, bytes / 4);
  int failures = 0;
  for (int32_t i = 0; i < 30; ++i) {
    try {
      session->feed(std::vector<int32_t>{20 + 7 * i});
    } catch (const Error& error) {
      ++failures;
      CHECK(std::string(error.what()).find("model.gguf: expert ") != std::string::npos);
      CHECK(std::string(error.what()).find("the file ends before it") != std::string::npos);
      CHECK(session->tokens().empty());
    }
  }
  CHECK(failures > 0);
  std::filesystem::resize_file(path, 0);
  std::filesystem::copy_file(test::models("demo.gguf"), path,
                             std::filesystem::copy_options::overwrite_existing);
  CHECK(logits_of() == before);
}

TEST_CASE("a plan that reads experts from disk is replayed; one that doesn't fit is refused") {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.context = 200;
  options.threads = 2;
  options.limits = test::limits();
  options.chunk_tokens = test::limits().chunk_tokens == 1 ? 1 : 40;
  const Budgeted planned = run_with_budget(options, int64_t{75} << 20);
  REQUIRE(planned.streams);
  options.ram_budget = int64_t{75} << 20;
  options.plan = test::plan_of(options);
  options.ram_budget.reset();
  const Budgeted replayed = run_with_budget(options, std::nullopt);
  CHECK(replayed.slots == planned.slots);
  CHECK(replayed.logits == planned.logits);
  options.plan->ram.budget = options.plan->ram.used - 1;
  CHECK_THROWS_AS(Engine::open(options), Error);
  options.plan->ram.budget += 1;
  options.plan->nvme.experts = 0;
  CHECK_THROWS_AS(Engine::open(options), Error);
}

TEST_CASE("a plan is replayed, and refused where it is of something else") {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.context = 500;
  options.threads = 2;
  options.chunk_tokens = 77;
  options.isa = "reference";
  const auto planned = Engine::open(options);

  EngineOptions replay;
  replay.model = options.model;
  replay.plan = planned->plan();
  const auto engine = Engine::open(replay);
  CHECK(engine->context() == 500);
  CHECK(engine->workers().threads() == 2);
  CHECK(engine->chunk_tokens() == 77);
  CHECK(engine->kernels().name == std::string("reference"));

  const auto refusal = [&](auto&& change) -> std::string {
    EngineOptions changed = replay;
    change(changed);
    try {
      Engine::open(changed);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refusal([](EngineOptions& o) {
          o.model = test::data("nano/nano.gguf");
        }).find("its model is") != std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.kv = KvType::kF32; }).find("its cache format is bf16") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.sessions = 2; }).find("2 are wanted") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.kv_budget = 1000; }).find("larger than --kv-budget") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) {
          o.plan.reset(), o.kv_budget = 1000;
        }).find("larger than --kv-budget") != std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.ram_budget = 1000; }).find("bytes of memory") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.plan->vram.used = 1; }).find("GPU") != std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.threads = 1; }).find("its number of threads is 2") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) {
          o.plan->node_threads = {2, 0, 0, 0, 0, 0, 0};
        }).find("threads on each NUMA node is [2, 0, 0, 0, 0, 0, 0]") != std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.plan->threads = 1 << 30; }).find("1024") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.plan->placement.chunk_tokens = 1 << 30; }).find("65536") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.plan->scratch_bytes -= 4; }).find("its bytes aren't") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.limits.logit_rows = 65; }).find("its bytes aren't") !=
        std::string::npos);
}

TEST_CASE("a budget that is too small is an error before anything is loaded") {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.ram_budget = 1 << 20;
  CHECK_THROWS_WITH_AS(Engine::open(options), doctest::Contains("RAM lacks"), Error);
}
