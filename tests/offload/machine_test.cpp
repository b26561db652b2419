// Profiles: written and read back the same, and refused with every fault named.
#include "offload/machine/machine.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "offload/a_machine.h"
#include "offload/machine/machine_json.h"
#include "offload/machine/machine_rates.h"
#include "support.h"

using namespace hearth;
using Json = nlohmann::json;

namespace {

// The message a text is refused with; empty where it is taken.
std::string refusal(const std::string& text) {
  try {
    parse_machine(text, "file.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// The same for a good profile with something changed.
std::string refusal(const std::function<void(Json&)>& change) {
  Json json = Json::parse(write_machine(test::a_machine()));
  change(json);
  return refusal(json.dump());
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Case {
  const char* pointer;
  Json value;
  const char* expected;
};

// A good profile with this value there is refused for that alone.
void check_refused(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    CAPTURE(c.pointer);
    CAPTURE(c.value.dump());
    const std::string message =
        refusal([&](Json& json) { json[Json::json_pointer(c.pointer)] = c.value; });
    CAPTURE(message);
    CHECK(has(message, c.expected));
    CHECK(message.starts_with("file.json: "));
    CHECK_FALSE(has(message, "problems"));  // nothing that merely follows is reported
    CHECK_FALSE(has(message, "\x1b"));
  }
}

}  // namespace

TEST_CASE("a profile reads back as it was written, to the last bit") {
  const Machine machine = test::a_machine();
  const std::string text = write_machine(machine);
  CHECK(parse_machine(text, "x") == machine);
  CHECK(write_machine(parse_machine(text, "x")) == text);
  CHECK(machine.memory_bytes() == int64_t{128} << 30);
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "m.json") << text;
  CHECK(read_machine(folder.path() / "m.json") == machine);
}

TEST_CASE("every key of a profile is needed, and no other is known") {
  const Json whole = Json::parse(write_machine(test::a_machine()));
  int keys = 0;
  const Json flat = whole.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    const Json::json_pointer at(pointer);
    if (whole[at.parent_pointer()].is_array()) continue;
    CAPTURE(pointer);
    ++keys;
    Json json = whole;
    json[at.parent_pointer()].erase(at.back());
    const std::string missing = refusal(json.dump());
    CHECK(has(missing, pointer + ": is missing"));
    json[at.parent_pointer()]["surprise"] = 1;
    CHECK(has(refusal(json.dump()), "surprise: is no field"));
  }
  CHECK(keys > 60);
}

TEST_CASE("formats are named as in files, and told apart where rows are interleaved") {
  CHECK(format_name(TensorType::kQ4_K, false) == "Q4_K");
  for (const char* name : {"Q4_K", "F8_E4M3", "Q4_K interleaved", "MXFP4 interleaved"}) {
    CHECK(is_format_name(name));
  }
  for (const char* name : {"", "Q9_X", " interleaved", "Q5_K interleaved", "Q4_K  interleaved"}) {
    CHECK_FALSE(is_format_name(name));
  }
}

TEST_CASE("a profile may have rates of every table of kernels that runs here") {
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    CHECK(refusal([&](Json& json) {
            json["cpu"]["isas"][1]["name"] = kernels->name;
          }).find("must be one of") == std::string::npos);
  }
}

TEST_CASE("each class of fault is refused, with the place of the fault") {
  check_refused({
      {"/read_gb_s", -5, "/read_gb_s: is -5, must be more than 0"},
      {"/read_gb_s", 0, "/read_gb_s: is 0, must be more than 0"},
      {"/read_gb_s", "fast", "/read_gb_s: must be a number"},
      {"/read_gb_s", nullptr, "/read_gb_s: must be a number"},
      {"/read_gb_s", 1e30, "/read_gb_s: is 1e+30"},
      {"/pci/1/link_gb_s", -1, "/pci/1/link_gb_s: is -1, must be 0 or more"},
      {"/cpu/cores", 2.5, "/cpu/cores: must be a whole number"},
      {"/cpu/cores", "8", "/cpu/cores: must be a whole number"},
      {"/cpu/cores", 0, "/cpu/cores: is 0"},
      {"/cpu/cores", 3000000000, "/cpu/cores: is 3000000000"},
      {"/cpu/l3_bytes", 18446744073709551615u, "/cpu/l3_bytes: is 18446744073709551615"},
      {"/cpu/l3_bytes", -1, "/cpu/l3_bytes: is -1"},
      {"/cpu/features/1", "avx2", "/cpu/features/1: avx2 stands there twice"},
      {"/cpu/isas/1/name", "avx512", "/cpu/isas/1/name: avx512 stands there twice"},
      {"/cpu/isas/0/formats", Json::array(), "/cpu/isas/0/formats: must have a format"},
      {"/cpu/isas/0/formats/0/format", "Q9_X", "/cpu/isas/0/formats/0/format: Q9_X is no weight"},
      {"/cpu/isas/0/formats/0/matmul", Json::array(), "matmul: has 0 items"},
      {"/cpu/isas/0/formats/0/matmul/0/tokens", 2, "matmul/0/tokens: must be 1"},
      {"/cpu/isas/0/formats/0/matmul/2/tokens", 4, "matmul/2/tokens: is not more than"},
      {"/cpu", 7, "/cpu: must be an object"},
      {"/cpu/features", "avx2", "/cpu/features: must be a list"},
      {"/name", "", "/name: must not be empty"},
      {"/name", 5, "/name: must be a text"},
      {"/name", "a\x1b[31m", "/name: holds control characters"},
      {"/name", std::string(1001, 'x'), "/name: is longer than 1000"},
      {"/nodes", Json::array(), "/nodes: has 0 items"},
      {"/nodes/1/read_from_gb_s", Json::array({1}), "/nodes/1/read_from_gb_s: has 1 rates"},
      {"/nodes/0/read_from_gb_s/1", -4, "/nodes/0/read_from_gb_s/1: is -4"},
      {"/gpus/0/clock_ghz", 0, "/gpus/0/clock_ghz: is 0, must be more than 0"},
      {"/gpus/0/node", 2, "/gpus/0/node: is 2, must be less than the 2"},
      {"/disks/0/node", 5, "/disks/0/node: is 5"},
      {"/pci/0/node", -1, "/pci/0/node: is -1"},
      {"/pci/1/parent", "0000:09:00.0", "/pci/1/parent: 0000:09:00.0 is not the address"},
      {"/pci/1/parent", "0000:01:00.0", "/pci/1/parent: 0000:01:00.0 is not the address"},
      {"/pci/1/address", "0000:00:01.0", "/pci/1/address: 0000:00:01.0 stands there twice"},
      {"/disks/0/rates/1/depth", 1, "/disks/0/rates/1: is not after"},
      {"/disks/0/rates/2/block_bytes", 512, "/disks/0/rates/2: is not after"},
      {"/nodes/0/read_from_gb_s", Json::array(), "/nodes/0/read_from_gb_s: has 0 items"},
      {"/assumed/0/field", "/gpus/1", "/assumed/0/field: /gpus/1 points to nothing"},
      {"/assumed/0/field", "gpus", "/assumed/0/field: gpus points to nothing"},
      {"/assumed/0/field", "/gpus/~7", "points to nothing"},
      {"/assumed/0/field", "/gpus/00", "points to nothing"},
      {"/assumed/0/field", "/gpus/99999999999999999999", "points to nothing"},
      {"/assumed/0/field", "/disks/0/rates/1/read_gb_s", "/assumed/1/field: stands there twice"},
      {"/assumed/0/source", "", "/assumed/0/source: must not be empty"},
      {"/version", 2, "/version: is 2; this program reads 1"},
      {"/version", "1", "/version: is \"1\""},
  });
}

TEST_CASE("counts, names and rates that no machine has are refused") {
  check_refused({
      {"/cpu/cores", 12, "/nodes: have 16 cores, the CPU has 12"},
      {"/cpu/cores", 64, "/nodes: have 16 cores, the CPU has 64"},
      {"/cpu/team", 99, "/cpu/team: is 99, more than the 32 threads"},
      {"/cpu/isas/1/name", "mmx", "/cpu/isas/1/name: is mmx, must be one of: amx,"},
      {"/pci/1/kind", "toaster", "/pci/1/kind: is toaster, must be one of: gpu, nvme,"},
      {"/nodes/0/copy_gb_s", 1e9, "/nodes/0/copy_gb_s: is 1000000000, more than 2 times the 90 of"},
      {"/gpus/0/to_gpu_beside_cpu_gb_s", 500, "_cpu_gb_s: is 500, more than 2 times the 52 of /g"},
      {"/gpus/0/cpu_read_beside_link_gb_s", 999,
       "_link_gb_s: is 999, more than 2 times the 181 of"},
      {"/cpu/threads", 8, "/cpu/threads: is 8, fewer than the 16 cores"},
      {"/cpu/packages", 17, "/cpu/packages: is 17"},
  });
}

TEST_CASE("a field without its unit, or with another one, is told from a missing one") {
  for (const char* wrong : {"read", "read_mb_s", "read_gib_s"}) {
    CAPTURE(wrong);
    const std::string message = refusal([&](Json& json) {
      json[wrong] = json["read_gb_s"];
      json.erase("read_gb_s");
    });
    CHECK(has(message, std::string(wrong) + ": has another unit"));
    CHECK(has(message, "read_gb_s, which is missing"));
    CHECK_FALSE(has(message, "problems"));
  }
}

TEST_CASE("a clock in another unit is told from a missing one") {
  const std::string message = refusal([&](Json& json) {
    Json& gpu = json["gpus"][0];
    gpu["clock_mhz"] = gpu["clock_ghz"];
    gpu.erase("clock_ghz");
  });
  CHECK(has(message, "clock_mhz: has another unit"));
  CHECK_FALSE(has(message, "problems"));
}

TEST_CASE("all faults of a file stand in one message") {
  const std::string message = refusal([](Json& json) {
    json["read_gb_s"] = -1;
    json["nodes"][0]["cores"] = 99;
    json["nodes"][1]["copy_gb_s"] = "x";
    json["cpu"].erase("loop_us");
    json["cpu"]["isas"][1]["name"] = "avx512";
    json["cpu"]["isas"][0]["formats"][0]["matmul"][1]["gflop_s"] = 0;
    json["cpu"]["isas"][0]["formats"][0]["matmul"][2]["tokens"] = 3;
    json["disks"][0]["capacity"] = 5;
    json["gpus"][0]["node"] = 7;
    json["assumed"][1]["field"] = "/nowhere";
  });
  CHECK(has(message, "10 problems"));
  for (const char* part :
       {"/read_gb_s: is -1", "/nodes: have 107 cores", "/nodes/1/copy_gb_s: must be a number",
        "/cpu/loop_us: is missing", "/cpu/isas/1/name: avx512 stands", "matmul/1/gflop_s: is 0",
        "matmul/2/tokens: is not more", "/disks/0/capacity: is no field", "/gpus/0/node: is 7",
        "/assumed/1/field: /nowhere points"}) {
    CAPTURE(part);
    CHECK(has(message, part));
  }
}

TEST_CASE("what is no profile at all is refused quickly") {
  CHECK(has(refusal(std::string()), "is not JSON"));
  CHECK(has(refusal("{\"version\": 1, \"read_gb_s\": NaN}"), "is not JSON"));
  CHECK(has(refusal("{\"version\": 1, \"read_gb_s\": 1e999}"), "is not JSON"));
  CHECK(has(refusal("{\"name\": \"\xff\"}"), "is not JSON"));
  CHECK(has(refusal("[]"), "must be an object"));
  CHECK(has(refusal("7"), "must be an object"));
  CHECK(has(refusal("{\"version\": 1, \"version\": 1}"), "version stands twice"));
  CHECK(has(refusal(std::string(100000, '[')), "nests deeper"));
  std::string nested;
  for (int i = 0; i < 5000; ++i) nested += "{\"a\":";
  CHECK(has(refusal(nested), "nests deeper"));
  CHECK(has(refusal(std::string(kProfileBytesMax + 1, ' ')), "is larger than"));
  std::string keys = "{\"a\":0";
  for (int i = 0; i < 80000; ++i) keys += ",\"" + std::to_string(i) + "\":0";
  CHECK(has(refusal(keys + "}"), "and"));
  std::string items = "{\"version\":1,\"gpus\":[0";
  for (int i = 0; i < 300000; ++i) items += ",0";
  CHECK(has(refusal(items + "]}"), "/gpus: has 300001 items"));
  CHECK_THROWS_AS(read_machine("/nowhere/at.all"), Error);
  CHECK_THROWS_WITH_AS(read_machine("/tmp"), doctest::Contains("is a folder"), Error);
  CHECK_THROWS_WITH_AS(read_machine("/dev/zero"), doctest::Contains("is larger"), Error);
}

TEST_CASE("names of unknown fields can't command a terminal") {
  const std::string message = refusal([](Json& json) { json["\x1b[2J/~"] = 1; });
  CHECK(has(message, "/?[2J~1~0: is no field"));
}

TEST_CASE("rates are rounded to four digits, counts are not") {
  Machine machine = test::a_machine();
  machine.read_gb_s = 123.456789;
  machine.nodes[1].read_from_gb_s[0] = 0.00123456;
  machine.cpu.isas[0].formats[0].matmul[1].gflop_s = 98765.4;
  machine.nodes[0].memory_bytes = 123456789;
  round_rates(machine);
  CHECK(machine.read_gb_s == 123.5);
  CHECK(machine.nodes[1].read_from_gb_s[0] == 0.001235);
  CHECK(machine.cpu.isas[0].formats[0].matmul[1].gflop_s == 98770);
  CHECK(machine.nodes[0].memory_bytes == 123456789);
}

TEST_CASE("of several measurements the median of each rate counts") {
  std::vector<Machine> machines(3, test::a_machine());
  machines[0].read_gb_s = 50, machines[1].read_gb_s = 10, machines[2].read_gb_s = 40;
  machines[0].disks[0].rates[2].latency_us = 1;
  machines[1].cpu.isas[0].formats[0].matmul[2].gflop_s = 1e9;
  Machine expected = test::a_machine();
  expected.read_gb_s = 40;
  CHECK(median_of(machines) == expected);
  CHECK(median_of(std::span(machines).first(1)) == machines[0]);
}

TEST_CASE("every profile of the repository is a good one with a name") {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::profiles())) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path());
    ++files;
    const Machine machine = read_machine(entry.path());
    CHECK_FALSE(machine.name.empty());
    const std::string text = test::read_text(entry.path());
    CHECK(write_machine(machine) == text);
    // A machine is measured by the program but for what is listed, or all its figures have a
    // source.
    const auto of_memory = [](const Assumption& a) { return a.field == "/read_gb_s"; };
    if (std::ranges::none_of(machine.assumed, of_memory)) continue;
    const Json whole = Json::parse(text), flat = whole.flatten();
    for (const auto& [pointer, value] : flat.items()) {
      CAPTURE(pointer);
      const bool is_figure = value.is_number() && pointer != "/version";
      CHECK((!is_figure || std::ranges::any_of(machine.assumed, [&](const Assumption& assumption) {
        return pointer.starts_with(assumption.field);
      })));
    }
  }
  CHECK(files >= 6);
}
