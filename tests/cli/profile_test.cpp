// `hearth profile` from outside.
#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "cli/program.h"
#include "cpu_kernels/registry.h"
#include "device/device.h"
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
