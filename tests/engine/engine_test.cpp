// Sessions and answers on the small real models.
#include <doctest/doctest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "engine/generate.h"
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
  CHECK(refusal([](EngineOptions& o) { o.ram_budget = 1000; }).find("bytes of memory") !=
        std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.plan->vram.used = 1; }).find("GPU") != std::string::npos);
  CHECK(refusal([](EngineOptions& o) { o.threads = 1; }).find("its number of threads is 2") !=
        std::string::npos);
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
