// `hearth profile` from outside.
#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "cli/profile_text.h"
#include "cli/program.h"
#include "cpu_kernels/registry.h"
#include "device/device.h"
#include "offload/a_machine.h"
#include "offload/machine/machine_json.h"
#include "offload/machine/topology.h"
#include "support.h"

using namespace hearth;
using test::Ran;
using test::run_hearth;

TEST_CASE("profile --quick --json prints a profile of this machine that reads back") {
  const test::TemporaryFolder folder;
  const std::filesystem::path out = folder.path() / "machine.json";
  const auto start = std::chrono::steady_clock::now();
  const Ran ran = run_hearth({"profile", "--quick", "--json", "--out", out});
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));  // of a busy machine
  CAPTURE(ran.err);
  REQUIRE(ran.exit_code == 0);
  CHECK(test::read_text(out) == ran.out);
  const Machine machine = parse_machine(ran.out, "standard output");
  CHECK(machine.cpu.cores == Topology::of_this_machine().cores());
  CHECK(machine.cpu.isas.front().name == std::string(usable_kernels().front()->name));
  CHECK(machine.cpu.isas.front().formats.size() >= 13);
  CHECK(machine.assumed.empty());
  CHECK(machine.disks.empty());
  CHECK(machine.gpus.empty() == (open_device(0).device == nullptr));
}

TEST_CASE("a profile's table has a unit over every column, and one of a thing is one") {
  Machine machine = test::a_machine();
  machine.cpu.packages = 1;
  const std::string text = cli::profile_text(machine);
  CHECK(text.find("16 cores, 32 threads, 1 package\n") != std::string::npos);
  const auto line_of = [&](const std::string& start) {
    const size_t at = text.find("\n  " + start);
    REQUIRE(at != std::string::npos);
    return text.substr(at + 1, text.find('\n', at + 1) - at - 1);
  };
  const std::string columns = line_of(std::string(19, ' ') + "from memory"),
                    units = line_of("format");
  CHECK(columns.ends_with(" 1 token   4 tokens  64 tokens"));
  CHECK(units.ends_with("GB/s    GFLOP/s    GFLOP/s    GFLOP/s"));
  CHECK(units.size() == columns.size());
  CHECK(line_of("MXFP4").size() == columns.size());
}

TEST_CASE("profile refuses what it can't do, before it measures") {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() / "file";
  std::ofstream(file) << "x";
  struct Case {
    std::vector<std::string> arguments;
    int exit_code;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {{"--threads", "-2"}, 2, "--threads"},
      {{"--threads", "5000"}, 2, "1 to 1024"},
      {{"--threads", "1024"}, 2, "1024 threads can't be measured: the cores run"},
      {{"--threads", "many"}, 2, "--threads"},
      {{"--fast"}, 2, "--fast"},
      {{"model.gguf"}, 2, "model.gguf"},
      {{"--out"}, 2, "--out"},
      {{"--out", folder.path() / "no" / "where.json"}, 1, "where.json"},
      {{"--out", folder.path()}, 1, "cannot be written"},
      {{"--disk", folder.path() / "none"}, 1, "none"},
      {{"--disk", ""}, 2, "--disk: names no file or folder"},
      {{"--disk", file}, 1, "is no folder"},
  };
  for (const Case& c : cases) {
    std::vector<std::string> arguments = {"profile", "--quick"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    CAPTURE(c.arguments.back());
    const Ran ran = run_hearth(arguments);
    CAPTURE(ran.err);
    CHECK(ran.exit_code == c.exit_code);
    CHECK(ran.out.empty());
    CHECK(ran.err.find(c.expected) != std::string::npos);
  }
}
