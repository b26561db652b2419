// The program from outside: results on standard output, one clear message for bad input, exit
// codes.
#include "cli/program.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "support.h"

using namespace hearth;
using nlohmann::json;

namespace hearth::test {

Ran run_hearth(const std::vector<std::string>& arguments, const std::string& input,
               const std::string& to) {
  const TemporaryFolder folder;
  const std::string in = folder.path() / "in", err = folder.path() / "err";
  const std::string out = to.empty() ? (folder.path() / "out").string() : to;
  std::ofstream(in, std::ios::binary) << input;
  const std::string program = binary();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t child = fork();
  HEARTH_CHECK(child >= 0);
  if (child == 0) {
    if (std::freopen(in.c_str(), "r", stdin) && std::freopen(out.c_str(), "w", stdout) &&
        std::freopen(err.c_str(), "w", stderr)) {
      execv(argv[0], argv.data());
    }
    _exit(127);
  }
  int status = 0;
  HEARTH_CHECK(waitpid(child, &status, 0) == child);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, to.empty() ? read_text(out) : "",
          read_text(err)};
}

}  // namespace hearth::test

using test::Ran;
using test::run_hearth;

TEST_CASE("run recites and stops; the answer alone is on standard output") {
  const Ran ran = run_hearth({"run", "-p", "Recite Psalms 23:1.", "--temp", "0"});
  CHECK(ran.exit_code == 0);
  CHECK(ran.out == "The LORD is my shepherd; I shall not want.\n");
  CHECK(ran.err.find("tok/s") != std::string::npos);
  CHECK(run_hearth({"run", "--temp", "0"}, "Recite Psalms 23:1.").out == ran.out);
}

TEST_CASE("run --json is one document, the same in every run; thinking stands apart") {
  const std::vector<std::string> arguments = {
      "run", "-p", "Recite Psalms 23:1.", "--seed", "3", "--think", "on", "--json"};
  const json first = json::parse(run_hearth(arguments).out);
  const json second = json::parse(run_hearth(arguments).out);
  CHECK(first["text"] == second["text"]);
  CHECK(first["result_hash"] == second["result_hash"]);
  CHECK_FALSE(first["reasoning"].get<std::string>().empty());
  CHECK(first["tokens"].get<int>() > 0);
  CHECK(first["prefill_tok_s"].get<double>() > 0);
  CHECK(first["stop_reason"] == "stop");
}

TEST_CASE("run: token limit, stop strings, raw continuation") {
  const json limited = json::parse(
      run_hearth({"run", "-p", "Recite Psalms 23:1.", "--temp", "0", "-n", "3", "--json"}).out);
  CHECK(limited["tokens"] == 3);
  CHECK(limited["stop_reason"] == "length");
  const json stopped = json::parse(
      run_hearth({"run", "-p", "Recite Psalms 23:1.", "--temp", "0", "--stop", "herd;", "--json"})
          .out);
  CHECK(stopped["text"] == "The LORD is my shep");
  CHECK(stopped["stop_reason"] == "stop");
  const Ran raw = run_hearth(
      {"run", "-p", "In the beginning God created the", "--raw", "--temp", "0", "-n", "12"});
  CHECK(raw.exit_code == 0);
  CHECK(raw.out.size() > 10);
}

TEST_CASE("results that can't be written are an error, whatever their length") {
  const std::string machine = test::profiles() / "rtx5090-8ch-256g.json";
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--help"},
        {"tokenize", "-p", "x"},
        {"plan", "flash", "--machine", machine},
        {"plan", "flash", "--machine", machine, "--json"}}) {
    CAPTURE(arguments.back());
    const Ran ran = run_hearth(arguments, "", "/dev/full");
    CHECK(ran.exit_code == 1);
    CHECK(ran.err ==
          "hearth: standard output: could not be written whole. Check the free space where it "
          "goes\n");
  }
}

TEST_CASE("tokenize prints ids, with special tokens only when asked") {
  const json text = json::parse(run_hearth({"tokenize", "-p", "God <think>"}).out);
  const json special = json::parse(run_hearth({"tokenize", "-p", "God <think>", "--special"}).out);
  CHECK(special.size() < text.size());
  CHECK(json::parse(run_hearth({"tokenize", "-f", "-"}, "God <think>").out) == text);
  CHECK(json::parse(run_hearth({"tokenize", "-p", ""}).out) == json::array());
}

TEST_CASE("inspect lists metadata, tensors and bytes") {
  const json report = json::parse(run_hearth({"inspect", "--json"}).out);
  CHECK(report["metadata"]["general.architecture"] == "deepseek4");
  uint64_t bytes = 0;
  for (const json& tensor : report["tensors"]) bytes += tensor["bytes"].get<uint64_t>();
  CHECK(report["bytes"]["total"] == bytes);
  CHECK(run_hearth({"inspect"}).out.find("token_embd.weight") != std::string::npos);
}

TEST_CASE("perplexity of the demo text is the golden figure within half a percent") {
  const std::string text = test::data("demo/demo.txt");
  const auto measure = [&](const std::filesystem::path& model) {
    const Ran ran = run_hearth({"perplexity", model, "-f", text, "-c", "512", "--json"});
    CHECK(ran.exit_code == 0);
    return json::parse(ran.out)["perplexity"].get<double>();
  };
  CHECK(measure(test::models("demo.gguf")) == doctest::Approx(24.7553).epsilon(0.005));
  CHECK(measure(test::data("demo/demo-q2_k.gguf")) == doctest::Approx(25.54876).epsilon(0.005));
  if (!test::has_shared()) return test::skip("perplexity of the other formats");
  const json golden = json::parse(test::read_text(test::shared("models/demo/perplexity.json")));
  for (const auto& [name, perplexity] : golden["perplexity"].items()) {
    CAPTURE(name);
    CHECK(measure(test::shared("models/demo/" + name)) ==
          doctest::Approx(perplexity.get<double>()).epsilon(0.005));
  }
}

TEST_CASE(
    "logits are written whole, and the same for every cut of the prompt where nothing is rounded") {
  const test::TemporaryFolder folder;
  const std::string out = folder.path() / "logits.f32";
  const auto golden = test::read_array<float>(test::data("nano/nano.logits.f32"));
  for (const std::string chunk : {"420", "7", "1"}) {
    const Ran ran = run_hearth({"logits", test::data("nano/nano.gguf"), "--tokens",
                                test::data("nano/nano.tokens.txt"), "--kv", "f32", "--chunk", chunk,
                                "--out", out});
    CHECK(ran.exit_code == 0);
    CHECK(test::max_difference(test::read_array<float>(out), golden) < 2e-4);
  }
}

TEST_CASE("bench reports speeds, stages and a hash as JSON") {
  const Ran ran =
      run_hearth({"bench", "-p", "8", "-n", "4", "-r", "1", "--batch", "1,2", "--json"});
  REQUIRE(ran.exit_code == 0);
  const json result = json::parse(ran.out);
  for (const char* key : {"prefill_tokens", "prefill_tok_s", "decode_tokens", "decode_tok_s",
                          "decode_bytes_per_token", "decode_gb_s", "read_peak_gb_s",
                          "matmul_peak_gflop_s", "peak_rss_bytes"}) {
    CAPTURE(key);
    CHECK(result[key].get<double>() > 0);
  }
  CHECK(result["batches"].size() == 2);
  CHECK(result["stages"].size() > 10);
  CHECK(run_hearth({"bench", "-p", "8", "-n", "4", "-r", "1", "--json"})
            .out.find(result["result_hash"].get<std::string>()) != std::string::npos);
}

TEST_CASE("bench decodes batches without a prompt, and shows the stages of each") {
  const Ran ran =
      run_hearth({"bench", "-p", "0", "-n", "3", "-r", "1", "--batch", "1,3", "--json"});
  REQUIRE(ran.exit_code == 0);
  const json result = json::parse(ran.out);
  CHECK(result["batches"][1]["decode_tok_s"].get<double>() > 0);
  CHECK(std::ranges::count(result["stages"], "3 at once", [](const json& stage) {
          return stage["phase"].get<std::string>();
        }) > 5);
}

TEST_CASE("bad usage exits 2 with one message, bad files exit 1") {
  const test::TemporaryFolder folder;
  const std::string text_file = folder.path() / "text.gguf";
  std::ofstream(text_file) << "this is not a model";
  const std::string ids = folder.path() / "ids.txt";
  std::ofstream(ids) << "1 2 three";
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {{}, 2, "subcommand"},
      {{"dance"}, 2, "no command 'dance'"},
      {{"--dance"}, 2, "no option"},
      {{"run", "--temp"}, 2, "--temp"},
      {{"run", "-p", "x", "--temp", "-1"}, 2, "temperature"},
      {{"run", "-p", "x", "--isa", "mmx"}, 2, "mmx"},
      {{"run", "-p", "x", "--ctx", "9999999999"}, 2, "--ctx"},
      {{"run", "-p", "x", "--kv", "q4"}, 2, "kv"},
      {{"run", "nowhere.gguf", "-p", "x"}, 1, "nowhere.gguf"},
      {{"run", folder.path(), "-p", "x"}, 1, "folder"},
      {{"inspect", text_file}, 1, "GGUF"},
      {{"logits", "--tokens", ids, "--out", "/dev/null"}, 1, "three"},
      {{"logits", "--tokens", "nowhere.txt", "--out", "/dev/null"}, 1, "nowhere.txt"},
      {{"perplexity", "-f", ids}, 1, "window"},
      {{"tokenize"}, 2, "-p TEXT"},
      {{"synth", "flash", "--out", "/dev/null/x", "--layers", "-3"}, 2, "layers"},
      {{"synth", "medium", "--out", "x"}, 2, "medium"},
      {{"bench", "-r", "0"}, 2, "repeats"},
      {{"run", "-p", "x", "--ram-budget", "5 apples"}, 2, "is no size"},
      {{"run", "-p", "x", "--ram-budget", "1KiB"}, 1, "--ram-budget"},
      {{"run", "-p", "x", "--plan", "nowhere.json"}, 1, "nowhere.json"},
      {{"plan", "flash", "--machine", "nowhere.json"}, 1, "nowhere.json"},
      {{"plan", "flash", "--ctx", "-5"}, 2, "--ctx: '-5' is not possible: give a whole number"},
      {{"run", "-p", "x", "--ctx", "1m"}, 2, "--ctx: '1m' is not possible: give a whole number"},
      {{"plan", "falsh"}, 1, "falsh: there is no such file. Name a GGUF file; flash and pro"},
      {{"simulate", "Flash"}, 1, "Flash: there is no such file. Name a GGUF file; flash and pro"},
      {{"plan", ""}, 2, "MODEL: names no file"},
      {{"plan", "--quant", "q4_k"}, 2, "formats already"},
      {{"plan", "flash", "--quant", "q11"}, 2, "q11"},
  };
  for (const Case& c : cases) {
    std::string line;
    for (const std::string& argument : c.arguments) line += argument + " ";
    CAPTURE(line);
    const Ran ran = run_hearth(c.arguments);
    CHECK(ran.exit_code == c.exit_code);
    CHECK(ran.out.empty());
    CHECK(ran.err.find(c.expected) != std::string::npos);
  }
}

TEST_CASE("help and version are results") {
  CHECK(run_hearth({"--version"}).out.starts_with("hearth "));
  const Ran help = run_hearth({"run", "--help"});
  CHECK(help.exit_code == 0);
  CHECK(help.out.find("--think") != std::string::npos);
}
