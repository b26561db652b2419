// `trace` and `simulate` from outside.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/program.h"
#include "offload/sim/routing_trace.h"
#include "support.h"

using namespace hearth;
using nlohmann::json;
using test::Ran;
using test::run_hearth;

namespace {

json parsed(const Ran& ran) {
  REQUIRE(ran.exit_code == 0);
  return json::parse(ran.out);
}

json policy(const json& result, const std::string& name) {
  for (const json& p : result["policies"]) {
    if (p["name"] == name) return p;
  }
  return nullptr;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("trace records what the model chose, the same for every chunk; simulate reads it") {
  const test::TemporaryFolder folder;
  const std::string trace = folder.path() / "a.trace", again = folder.path() / "b.trace";
  const std::string text = test::data("demo/demo.txt"), svg = folder.path() / "a.svg";
  const json result = parsed(
      run_hearth({"trace", "-f", text, "--out", trace, "--ctx", "4096", "--svg", svg, "--json"}));
  CHECK(result["layers"] == 5);
  CHECK(result["experts"] == 16);
  CHECK(result["used"] == 2);
  const json ids = json::parse(run_hearth({"tokenize", "-f", text}).out);
  const auto tokens = static_cast<int64_t>(ids.size());
  // Two windows, each with a token in front that begins a text.
  CHECK(result["tokens"] == tokens + 2);
  CHECK(result["sequences"] == json{4096, tokens + 2 - 4096});
  REQUIRE(result["per_layer"].size() == 5);
  REQUIRE(result["held"].size() == result["all"]["lru"].size());
  CHECK(result["all"]["static"].back() == doctest::Approx(1));
  CHECK(result["per_layer"][4]["working_set"][0] == doctest::Approx(2));
  CHECK(contains(test::read_text(svg), "Working set"));

  const json chunked = parsed(run_hearth(
      {"trace", "-f", text, "--out", again, "--ctx", "4096", "--chunk", "1000", "--json"}));
  CHECK(chunked["result_hash"] == result["result_hash"]);
  CHECK(test::read_text(again) == test::read_text(trace));

  const json simulated =
      parsed(run_hearth({"simulate", "--trace", trace, "--held", "25,50", "--json"}));
  CHECK(simulated["tokens"] == tokens + 2);
  CHECK(simulated["trace_hash"] == result["result_hash"]);
  CHECK(simulated["held"][0]["slots"] == 20);
  CHECK(policy(simulated, "popular") == nullptr);
  for (int i = 0; i < 2; ++i) {
    CAPTURE(i);
    const auto rate = [&](const char* name) {
      return policy(simulated, name)["hit_rate"][i].get<double>();
    };
    CHECK(rate("hearth") > rate("lru") + 0.02);  // on real routing
    CHECK(rate("optimal") > rate("hearth"));
    CHECK(policy(simulated, "lru")["below_optimal"][i].get<double>() ==
          doctest::Approx(rate("optimal") - rate("lru")));
    // The same figure where the trace was recorded.
    CHECK(result["all"]["lru"][i == 0 ? 25 : 50] == doctest::Approx(rate("lru")));
  }
  CHECK(run_hearth({"simulate", test::models("demo.gguf"), "--trace", trace}).exit_code == 0);
  const Ran other = run_hearth({"simulate", "flash", "--trace", trace});
  CHECK(other.exit_code == 1);
  CHECK(contains(other.err, "V4-Flash has 43 of 256"));
  for (const RoutingTrace& shape : {RoutingTrace{43, 255, 6, {1}, {}}, {43, 256, 5, {1}, {}}}) {
    RoutingTrace near = shape;
    near.picks.resize(near.layers * near.used);
    write_trace(near, again);
    CHECK(run_hearth({"simulate", "flash", "--trace", again}).exit_code == 1);
    CHECK(run_hearth({"simulate", "--trace", again}).exit_code == 0);
  }
}

TEST_CASE("trace files under each token and layer the experts that it chose") {
  const test::TemporaryFolder folder;
  const std::string out = folder.path() / "a.trace";
  const Ran ran = run_hearth({"trace", "-f", test::data("demo/demo.txt"), "--out", out, "--ctx",
                              "300", "--chunk", "70", "--kv", "f32"});
  CHECK(ran.exit_code == 0);
  CHECK(contains(ran.out, "layer"));
  CHECK(contains(ran.out, "in 21 sequences,"));
  const RoutingTrace trace = read_trace(out);
  // The golden tokens are the begin token and the beginning of the text, in a context of 300.
  const auto golden = test::read_array<int32_t>(test::data("demo/demo.picks.i32"));
  constexpr int64_t kTokens = 300;
  REQUIRE(std::ssize(golden) == trace.layers * kTokens * trace.used);
  const auto chosen = [](const auto* first, int32_t n) {
    return std::set<int32_t>(first, first + n);
  };
  int64_t different = 0;
  for (int32_t layer = 0; layer < trace.layers; ++layer) {
    for (int64_t token = 0; token < kTokens; ++token) {
      const int32_t* wanted = golden.data() + (layer * kTokens + token) * trace.used;
      different += chosen(trace.at(token, layer).data(), trace.used) != chosen(wanted, trace.used);
    }
  }
  // Activations rounded to 8 bits swap two near scores now and then.
  CHECK(different <= 30);  // of 1500
}

TEST_CASE("simulate draws routing by the name of a shape or a model file") {
  const json flash = parsed(run_hearth({"simulate", "flash", "--tokens", "300", "--json"}));
  CHECK(flash["layers"] == 43);
  CHECK(flash["held"][0]["slots"] == 1321);
  REQUIRE(flash["policies"].size() == 6);
  for (const json& p : flash["policies"]) {
    for (int i = 0; i < 3; ++i) {
      CHECK(p["hit_rate"][i].get<double>() > 0);
      const bool loaded_beforehand = p["name"] == "popular" || p["name"] == "static";
      if (!loaded_beforehand) CHECK(p["below_optimal"][i].get<double>() >= 0);
    }
  }
  CHECK(policy(flash, "popular")["hit_rate"][1].get<double>() ==
        doctest::Approx(0.463).epsilon(0.1));
  const std::vector<std::string> pro = {"simulate", "pro", "--tokens", "50",
                                        "--seed",   "3",   "--json"};
  CHECK(parsed(run_hearth(pro))["experts"] == 384);
  CHECK(run_hearth(pro).out == run_hearth(pro).out);
  const json demo = parsed(run_hearth({"simulate", "--tokens", "50", "--held", "0,100", "--json"}));
  CHECK(demo["experts"] == 16);
  CHECK(demo["held"][0]["slots"] == 2);  // a step's experts at least
  CHECK(demo["held"][1]["slots"] == 80);

  const test::TemporaryFolder folder;
  const std::string svg = folder.path() / "curves.svg";
  const Ran table = run_hearth({"simulate", "flash", "--tokens", "100", "--svg", svg});
  CHECK(table.exit_code == 0);
  CHECK(contains(table.out, "Belady"));
  CHECK(contains(table.out, "25.0 %"));
  CHECK(contains(test::read_text(svg), ">hearth<"));

  // A fixed list has all that a single token uses, an empty cache nothing: as far apart as can be.
  const std::string one = run_hearth({"simulate", "flash", "--tokens", "1", "--held", "50"}).out;
  CHECK(contains(one, ": 1 token in 43 layers of"));
  const auto percent_in = [&](const std::string& row) {
    return one.find('%', one.find("\n" + row)) - one.find("\n" + row);
  };
  CHECK(contains(one, "100.0 % (+100.0)"));
  CHECK(percent_in("static") == percent_in("optimal"));
}

TEST_CASE("trace and simulate say what is wrong with what they are given") {
  const test::TemporaryFolder folder;
  const std::string text = folder.path() / "text", empty = folder.path() / "empty";
  const std::string out = folder.path() / "out";
  std::ofstream(text) << "And God said";
  std::ofstream(empty) << "";
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string expected;
  };
  for (const Case& c : {
           Case{{"trace", "--out", out}, 2, "--file"},
           Case{{"trace", "-f", text}, 2, "--out"},
           Case{{"trace", "-f", empty, "--out", out}, 1, "no text"},
           Case{{"trace", "-f", "nowhere.txt", "--out", out}, 1, "nowhere.txt"},
           Case{{"trace", "-f", text, "--out", out, "--ctx", "1"}, 2, "--ctx"},
           Case{{"trace", "-f", text, "--out", out, "--chunk", "0"}, 2, "chunk"},
           Case{{"trace", "-f", text, "--out", "/dev/null/x"}, 1, "/dev/null/x"},
           Case{{"trace", "-f", text, "--out", out, "--svg", "/dev/null/x"}, 1, "/dev/null/x"},
           Case{{"simulate", "--trace", text}, 1, "not a routing trace"},
           Case{{"simulate", "--trace", "nowhere.trace"}, 1, "nowhere.trace"},
           Case{{"simulate", "medium"}, 1, "medium"},
           Case{{"simulate", "flash", "--held", "120"}, 2, "held"},
           Case{{"simulate", "flash", "--held", "nan"}, 2, "held"},
           Case{{"simulate", "flash", "--held", "12,,3"}, 2, "--held: '' percent"},
           Case{{"simulate", "flash", "--held", "12,"}, 2, "--held: '' percent"},
           Case{{"simulate", "flash", "--seed", "-1"}, 2, "--seed: '-1' is not possible"},
           Case{{"simulate", "--trace", text, "--tokens", "5"}, 2, "--trace excludes --tokens"},
           Case{{"simulate", "--trace", text, "--seed", "5"}, 2, "--seed: nothing is drawn"},
           Case{{"simulate", ""}, 2, "MODEL: names no file"},
           Case{{"simulate", "flash", "--tokens", "0"}, 2, "tokens"},
           Case{{"simulate", "flash", "--svg", "/dev/null/x"}, 1, "/dev/null/x"},
       }) {
    std::string line;
    for (const std::string& argument : c.arguments) line += argument + " ";
    CAPTURE(line);
    const Ran ran = run_hearth(c.arguments);
    CAPTURE(ran.err);
    CHECK(ran.exit_code == c.exit_code);
    CHECK(ran.out.empty());
    CHECK(contains(ran.err, c.expected));
    CHECK_FALSE(std::filesystem::exists(out));
  }
}

TEST_CASE("simulate --machine decodes on a virtual clock, beside what the plan predicts") {
  const std::string machine = test::profiles() / "zen4-2c-24g.json";
  const std::vector<std::string> flash = {"simulate", "flash", "--machine", machine, "--tokens",
                                          "60",       "--ctx", "4096",      "--json"};
  const Ran ran = run_hearth(flash);
  const json result = parsed(ran);
  CHECK(run_hearth(flash).out == ran.out);
  const double predicted = result["predict"]["decode_tok_s"];
  CHECK(result["policy"]["name"] == "hearth");
  CHECK(result["policy"]["decode_tok_s"].get<double>() / predicted ==
        doctest::Approx(result["policy"]["of_predicted"].get<double>()));
  CHECK(result["policy"]["of_predicted"].get<double>() > 0.3);
  CHECK(result["policy"]["of_predicted"].get<double>() < 3);
  CHECK(result["measured_tokens"] == 45);
  REQUIRE(result["policies"].size() == 6);
  for (const json& p : result["policies"]) {
    const json& hits = p["hit_rate"];
    CHECK(hits["vram"] == 0);
    CHECK(hits["ram"] == hits["memory"]);
    CHECK(p["disk_bytes_per_token"].get<double>() > 0);
    double resources = 0;
    for (const json& part : p["resources"]) resources += part.get<double>();
    CHECK(resources == doctest::Approx(1));
    CHECK(p["disk_wait_share"] == p["resources"]["disk"]);
    CHECK(p["disk_share_of_profile"].get<double>() <= 1);
  }
  CHECK(policy(result, "optimal")["hit_rate"]["ram"] > policy(result, "lru")["hit_rate"]["ram"]);

  std::vector<std::string> guessing = flash;
  guessing.insert(guessing.end(), {"--prefetch", "0.9", "--stall", "20", "--policy", "lru"});
  const json ahead = parsed(run_hearth(guessing));
  CHECK(ahead["policy"] == policy(ahead, "lru"));
  CHECK(ahead["prefetch"]["pays"].get<bool>() == (ahead["prefetch"]["gain"].get<double>() > 0));
  CHECK(policy(ahead, "lru")["hit_rate"] == policy(result, "lru")["hit_rate"]);

  // The demo model, along a trace of its own.
  const test::TemporaryFolder folder;
  const std::string trace = folder.path() / "a.trace", text = folder.path() / "text";
  std::ofstream(text) << "In the beginning God created the heaven and the earth.";
  CHECK(run_hearth({"trace", "-f", text, "--out", trace}).exit_code == 0);
  const Ran demo =
      run_hearth({"simulate", "--machine", machine, "--trace", trace, "--prefetch", "1"});
  CHECK(demo.exit_code == 0);
  for (const char* part : {"which the plan goes by", "planned", "simulated", "predicted", "tok/s",
                           "of it", "nothing is read", "prefetch", "optimal", "result hash"}) {
    CAPTURE(part);
    CHECK(contains(demo.out, part));
  }
  const Ran drawn = run_hearth({"simulate", "--machine", machine, "--routing", "random"});
  CHECK(drawn.exit_code == 0);
  const Ran other = run_hearth({"simulate", "pro", "--machine", machine, "--trace", trace});
  CHECK(other.exit_code == 1);
  CHECK(contains(other.err, "has 5 layers of 16 experts"));
}

TEST_CASE("simulate plans by the first half of a recorded trace and decodes the second") {
  const std::string machine = test::profiles() / "zen4-2c-24g.json";
  const test::TemporaryFolder folder;
  const std::string file = folder.path() / "a.trace", text = folder.path() / "text";
  std::ofstream(text) << test::read_text(test::data("demo/demo.txt")).substr(0, 2000);
  REQUIRE(run_hearth({"trace", "-f", text, "--out", file, "--ctx", "100"}).exit_code == 0);
  const RoutingTrace trace = read_trace(file);
  const int64_t half = trace.tokens() / 2;
  const std::vector<std::string> asked = {
      "simulate",  "--machine", machine,    "--trace", file,     "--ctx",        "256",
      "--warm-up", "0",         "--policy", "lru",     "--json", "--ram-budget", "75MiB"};
  const json result = parsed(run_hearth(asked));
  CHECK(result["planned_from_tokens"] == half);
  CHECK(result["tokens"] == trace.tokens() - half);
  const int64_t ram = result["experts"]["ram"];
  REQUIRE(ram > 10);
  REQUIRE(ram < 70);

  // The fixed list: what the first half used most, of all layers together.
  std::vector<std::pair<int64_t, int32_t>> uses;  // less than none, so that sorting puts most first
  for (int32_t key = 0; key < 5 * 16; ++key) uses.emplace_back(0, key);
  const auto key_of = [](size_t pick, uint16_t expert) { return pick / 2 % 5 * 16 + expert; };
  const size_t border = half * 5 * 2;
  for (size_t i = 0; i < border; ++i) --uses[key_of(i, trace.picks[i])].first;
  std::ranges::sort(uses);
  std::set<size_t> first;
  for (int64_t i = 0; i < ram; ++i) first.insert(uses[i].second);
  int64_t hits = 0;
  for (size_t i = border; i < trace.picks.size(); ++i)
    hits += first.contains(key_of(i, trace.picks[i]));
  const auto held = [&](const char* name) {
    return policy(result, name)["hit_rate"]["ram"].get<double>();
  };
  CHECK(held("planned") == doctest::Approx(static_cast<double>(hits) /
                                           static_cast<double>(trace.picks.size() - border)));
  CHECK(held("static") > held("planned"));  // it has seen what is simulated

  // Hit rates are predicted from the same half: by the plan that `plan --trace` makes of it alone.
  const std::string known = folder.path() / "known.trace";
  write_trace(split_trace(trace, half).first, known);
  const json plan = parsed(run_hearth({"plan", "--machine", machine, "--trace", known, "--ctx",
                                       "256", "--ram-budget", "75MiB", "--json"}));
  CHECK(result["plan_hash"] == plan["hash"]);
  CHECK(result["predict"]["memory_hit_rate"] == plan["predict"]["memory_hit_rate"]);
  CHECK(result["predict"]["decode_tok_s"] == plan["predict"]["decode_tok_s"]);

  write_trace(split_trace(trace, 1).first, known);
  const Ran single = run_hearth({"simulate", "--machine", machine, "--trace", known});
  CHECK(single.exit_code == 1);
  CHECK(contains(single.err, "holds a single token"));
}

TEST_CASE("simulate --machine says what is wrong with what it is given") {
  const test::TemporaryFolder folder;
  const std::string machine = test::profiles() / "zen4-2c-24g.json";
  const std::string trace = folder.path() / "a.trace", text = folder.path() / "text";
  std::ofstream(text) << "And God said";
  CHECK(run_hearth({"trace", "-f", text, "--out", trace}).exit_code == 0);
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string expected;
  };
  for (const Case& c : {
           Case{{"--ctx", "4096"}, 2, "--machine"},
           Case{{"--prefetch", "0.5"}, 2, "--machine"},
           Case{{"--machine", ""}, 2, "names no file"},
           Case{{"--machine", "nowhere.json"}, 1, "nowhere.json"},
           Case{{"--machine", text}, 1, text},
           Case{{"--machine", machine, "--held", "12"}, 2, "--held"},
           Case{{"--machine", machine, "--block", "4"}, 2, "--block"},
           Case{{"--machine", machine, "--svg", "x.svg"}, 2, "--svg"},
           Case{{"--machine", machine, "--parallel", "2"}, 2, "--parallel"},
           Case{{"--machine", machine, "--policy", "best"}, 2, "best"},
           Case{{"--machine", machine, "--prefetch", "1.1"},
                2,
                "--prefetch: can't be 1.1. Give 0 to 1"},
           Case{{"--machine", machine, "--prefetch", "nan"}, 2, "--prefetch"},
           Case{{"--machine", machine, "--stall", "-1"}, 2, "--stall"},
           Case{{"--machine", machine, "--stall", "inf"}, 2, "--stall"},
           Case{{"--machine", machine, "--warm-up", "100"}, 2, "--warm-up"},
           Case{{"--machine", machine, "--quant", "q4_k"}, 2, "formats already"},
           Case{{"--machine", machine, "--depth", "99999", "--ctx", "100"}, 2, "--depth"},
           Case{{"--machine", machine, "--isa", "amx"}, 1, "no rates of the amx kernels"},
           Case{{"--machine", machine, "--ram-budget", "1MiB"}, 1, "RAM lacks"},
           Case{{"--machine", machine, "--trace", trace, "--policy", "popular"}, 2, "popular"},
           Case{{"--machine", machine, "--policy", "planned"}, 2, "needs a recorded trace"},
       }) {
    std::vector<std::string> arguments = {"simulate"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    std::string line;
    for (const std::string& argument : arguments) line += argument + " ";
    CAPTURE(line);
    const Ran ran = run_hearth(arguments);
    CAPTURE(ran.err);
    CHECK(ran.exit_code == c.exit_code);
    CHECK(ran.out.empty());
    CHECK(contains(ran.err, c.expected));
  }
}
