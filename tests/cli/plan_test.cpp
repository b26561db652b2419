// `hearth plan`, and engines that follow what it wrote, as a person runs them.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "offload/machine/machine_json.h"
#include "program.h"
#include "support.h"

using namespace hearth;
using test::Ran;
using test::run_hearth;
using Json = nlohmann::ordered_json;

namespace {

std::string profile(const std::string& name) {
  return (test::models("").parent_path().parent_path() / "profiles" / name).string();
}

Json plan_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "plan");
  arguments.push_back("--json");
  const Ran ran = run_hearth(arguments);
  CAPTURE(ran.err);
  REQUIRE(ran.exit_code == 0);
  return Json::parse(ran.out);
}

}  // namespace

TEST_CASE(
    "Flash and Pro on reference workstations: everything has a place, and a speed below the "
    "physical ceiling") {
  struct Case {
    const char* model;
    const char* machine;
    const char* quant;
    double ceiling_tok_s;  // bytes over bandwidths at the hit rates assumed
  };
  for (const Case& c : {Case{"flash", "rtx5090-2ch-256g.json", "mxfp4", 60},
                        Case{"flash", "rtx5090-2ch-256g.json", "q2", 130},
                        Case{"flash", "rtx5090-8ch-256g.json", "mxfp4", 119},
                        Case{"pro", "rtx5090-2ch-256g.json", "mxfp4", 7.3},
                        Case{"pro", "rtx5090-8ch-256g.json", "q2", 33}}) {
    CAPTURE(c.model);
    CAPTURE(c.machine);
    CAPTURE(c.quant);
    const Json plan = plan_json(
        {c.model, "--machine", profile(c.machine), "--quant", c.quant, "--ctx", "131072"});
    CHECK(plan["fits"] == true);
    CHECK(plan["tiers"]["vram"]["used"].get<int64_t>() <= int64_t{33607909376});  // 31.3 GiB
    const auto weights = [&](const char* tier) {
      return plan["tiers"][tier]["weights"].get<int64_t>();
    };
    CHECK(weights("vram") + weights("ram") + weights("nvme") ==
          plan["bytes"]["weights"].get<int64_t>());
    CHECK(plan["predict"]["decode_tok_s"].get<double>() < c.ceiling_tok_s);
    CHECK(plan["predict"]["decode_tok_s"].get<double>() > 0.3 * c.ceiling_tok_s);
  }
}

TEST_CASE(
    "a million tokens of Flash: planned on 32 GB of VRAM, refused in words on little memory") {
  const Json plan =
      plan_json({"flash", "--machine", profile("rtx5090-2ch-256g.json"), "--ctx", "1048576"});
  CHECK(plan["fits"] == true);
  const Ran small = run_hearth({"plan", "flash", "--machine", profile("rtx5090-2ch-256g.json"),
                                "--ctx", "1048576", "--no-gpu", "--ram-budget", "8GiB"});
  CHECK(small.exit_code == 0);
  CHECK(small.out.find("It does not fit") != std::string::npos);
  CHECK(small.out.find("RAM lacks") != std::string::npos);
  CHECK(small.out.find("of KV cache") != std::string::npos);
}

TEST_CASE("the table tells places, speed, reasons, what would help, and the hash") {
  const test::TemporaryFolder folder;
  const std::string picture = folder.path() / "plan.svg";
  const Ran ran = run_hearth({"plan", "flash", "--machine", profile("rtx5090-2ch-96g.json"),
                              "--ctx", "131072", "--svg", picture});
  CHECK(ran.exit_code == 0);
  CHECK(ran.err.empty());
  for (const char* part : {"VRAM", "RAM", "NVMe", "tok/s", "bound by", "Why", "What would help",
                           "+16 GiB VRAM", "plan 0x"}) {
    CAPTURE(part);
    CHECK(ran.out.find(part) != std::string::npos);
  }
  const std::string svg = test::read_text(picture);
  CHECK(svg.starts_with("<"));
  CHECK(svg.find("experts in VRAM") != std::string::npos);
  CHECK(svg.find("layer 42") != std::string::npos);
}

TEST_CASE("the table has parts of caches, what is busy at the same time, and only true gains") {
  const std::vector<std::string> pro = {
      "pro", "--machine", profile("rtx5090-2ch-256g.json"), "--parallel", "4", "--ctx", "8192"};
  std::vector<std::string> table = {"plan"};
  table.insert(table.end(), pro.begin(), pro.end());
  const std::string out = run_hearth(table).out;
  for (const char* part : {"all 4 sessions together", "of one session at a time", "CSA rows",
                           "at the same time", "of RAM for code and the tokenizer's tables"}) {
    CAPTURE(part);
    CHECK(out.find(part) != std::string::npos);
  }
  const Json plan = plan_json(pro);
  int64_t kv = 0;
  for (const char* tier : {"vram", "ram"}) {
    for (const auto& [name, bytes] : plan["tiers"][tier]["kv_parts"].items()) {
      kv += bytes.get<int64_t>();
    }
  }
  CHECK(kv == plan["bytes"]["kv"].get<int64_t>());
  CHECK_FALSE(plan["predict"]["decode_beside_ms"].empty());
  const std::string decode_only =
      run_hearth({"plan", "pro", "--machine", profile("rtx5090-2ch-256g.json"), "--prompt", "0"})
          .out;
  CHECK(decode_only.find("What would help") != std::string::npos);
  CHECK(decode_only.find("prefill") == std::string::npos);
  const std::string unfit = run_hearth({"plan", "flash", "--machine",
                                        profile("rtx5090-2ch-256g.json"), "--ram-budget", "0"})
                                .out;
  CHECK(unfit.find("+64 GiB RAM: fits then, decode") != std::string::npos);
}

TEST_CASE("a recorded trace sets the hit rates, one of another model is refused") {
  const test::TemporaryFolder folder;
  const std::string text = folder.path() / "text.txt", trace = folder.path() / "text.trace";
  std::ofstream(text) << test::read_text(test::data("demo/demo.txt"));
  REQUIRE(run_hearth({"trace", "-f", text, "--out", trace}).exit_code == 0);
  // Half of the experts on disk, so that hit rates matter; 65 MiB are the program's.
  const std::vector<std::string> plan = {"--machine",    profile("server-12ch-384g.json"),
                                         "--ctx",        "256",
                                         "--chunk",      "32",
                                         "--ram-budget", "77MiB"};
  std::vector<std::string> traced = plan;
  traced.insert(traced.end(), {"--trace", trace});
  const Json without = plan_json(plan), with = plan_json(traced);
  REQUIRE(without["tiers"]["nvme"]["experts"].get<int64_t>() > 0);
  CHECK(with["predict"]["memory_hit_rate"] != without["predict"]["memory_hit_rate"]);
  const Ran other = run_hearth(
      {"plan", "flash", "--machine", profile("server-12ch-384g.json"), "--trace", trace});
  CHECK(other.exit_code == 1);
  CHECK(other.err.find("flash has 43 of 256, 6 used") != std::string::npos);
}

TEST_CASE("run follows a plan that was written, and says which") {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() / "plan.json";
  const Json plan = plan_json({"--machine", profile("zen4-2c-24g.json"), "--ctx", "600", "--isa",
                               "avx2", "--threads", "1", "--chunk", "32"});
  std::ofstream(file) << plan.dump();
  const std::vector<std::string> run = {
      "run",    "-p", "Recite Psalms 23:1.", "--temp", "0", "-n", "4", "--isa", "avx2",
      "--plan", file};
  const Ran ran = run_hearth(run);
  CHECK(ran.exit_code == 0);
  CHECK(ran.err.find(plan["hash"].get<std::string>()) != std::string::npos);
  CHECK(ran.err.find("32 tokens of a prompt at a time") != std::string::npos);

  CHECK(ran.err.find("wait for one another") == std::string::npos);

  const Ran shorter =
      run_hearth({"run", "-p", "x", "--ctx", "300", "--isa", "avx2", "--plan", file});
  CHECK(shorter.exit_code == 1);
  CHECK(shorter.err.find(file + ": its context is 600, here it is 300: plan with --ctx 300") !=
        std::string::npos);

  Json changed = plan;
  changed["layers"][4]["ram"] = 0;
  std::ofstream(file, std::ios::trunc) << changed.dump();
  const Ran refused = run_hearth(run);
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("its hash isn't that of its content") != std::string::npos);
}

TEST_CASE("a plan of more threads than there are cores is followed with a warning") {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() / "plan.json";
  std::ofstream(file) << plan_json(
      {"--machine", profile("zen4-2c-24g.json"), "--ctx", "64", "--isa", "avx2", "--threads", "3"});
  setenv("HWLOC_SYNTHETIC", "numa:1 core:2 pu:1", 1);
  const Ran ran =
      run_hearth({"run", "-p", "x", "-n", "1", "--isa", "avx2", "--ctx", "64", "--plan", file});
  unsetenv("HWLOC_SYNTHETIC");
  CAPTURE(ran.err);
  CHECK(ran.exit_code == 0);
  CHECK(ran.err.find("the plan has 3 threads compute, this machine has 2 cores") !=
        std::string::npos);
}

TEST_CASE("a plan shares its threads out to NUMA nodes, and is followed where these are") {
  const test::TemporaryFolder folder;
  const std::string machine_file = folder.path() / "machine.json";
  const std::string file = folder.path() / "plan.json", picture = folder.path() / "plan.svg";
  Machine machine = read_machine(profile("server-12ch-384g.json"));
  machine.cpu.cores = machine.cpu.threads = machine.cpu.team = 4;
  machine.cpu.isas.front().name = "avx2";
  machine.nodes.front().cores = 2;
  machine.nodes.front().read_from_gb_s.assign(2, 100);
  machine.nodes.push_back(machine.nodes.front());
  std::ofstream(machine_file) << write_machine(machine);
  const std::vector<std::string> asked = {"--machine", machine_file, "--ctx",   "600",
                                          "--isa",     "avx2",       "--chunk", "32"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), asked.begin(), asked.end());
    return arguments;
  };
  const Json plan = plan_json(asked);
  CHECK(plan["node_threads"] == Json({2, 2}));
  CHECK(plan_json(with({"--threads", "3"}))["node_threads"] == Json({2, 1}));
  CHECK_FALSE(plan_json(with({"--threads", "5"})).contains("node_threads"));
  const Ran table = run_hearth(with({"plan", "--svg", picture}));
  CHECK(table.out.find("4 threads, 2 + 2 on the NUMA nodes") != std::string::npos);
  CHECK(test::read_text(picture).find("2 + 2 on the NUMA nodes") != std::string::npos);

  std::ofstream(file) << plan.dump();
  const auto run_on = [&](const char* topology) {
    setenv("HWLOC_SYNTHETIC", topology, 1);
    const Ran ran = run_hearth({"run", "-p", "Recite Psalms 23:1.", "--temp", "0", "-n", "8",
                                "--isa", "avx2", "--plan", file});
    const Ran free = run_hearth({"run", "-p", "Recite Psalms 23:1.", "--temp", "0", "-n", "8",
                                 "--isa", "avx2", "--threads", "3"});
    unsetenv("HWLOC_SYNTHETIC");
    CHECK(free.exit_code == 0);
    return std::pair(ran, free);
  };
  const auto [followed, three] = run_on("numa:2 core:2 pu:1");
  CAPTURE(followed.err);
  CHECK(followed.exit_code == 0);
  CHECK(followed.err.find("4 threads, 2 + 2 on the NUMA nodes") != std::string::npos);
  CHECK(three.err.find("3 threads, 2 + 1 on the NUMA nodes") != std::string::npos);
  CHECK(three.out == followed.out);
  const auto [refused, one_node] = run_on("numa:1 core:4 pu:1");
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("its number of threads on each NUMA node is [2, 2], here it is []") !=
        std::string::npos);
  CHECK(one_node.err.find("avx2 kernels on 3 threads\n") != std::string::npos);
  CHECK(one_node.out == followed.out);
}
