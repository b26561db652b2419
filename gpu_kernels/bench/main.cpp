// Measures the GPU kernels at the sizes of DeepSeek-V4-Flash. Exit codes: 0 measured, 1 a table
// failed, 2 usage, 77 there is no device.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "gpu_kernels/bench/tables.h"

namespace {

using namespace hearth;
using namespace hearth::bench;

constexpr int kNoDeviceCode = 77;

std::vector<std::string> table_names() {
  std::vector<std::string> names;
  for (const NamedTable& table : kTables) names.emplace_back(table.name);
  return names;
}

void write_json(const std::string& path, const nlohmann::ordered_json& document) {
  std::ofstream file(path);
  file << document.dump(2) << '\n';
  file.close();
  if (!file) throw Error("the results could not be written", path, "Name a file that can be");
}

// Whether no table failed. After each the JSON file is there as far as it goes.
bool measure(Device& device, const std::string& only, const std::string& json_path) {
  nlohmann::ordered_json document = {{"device", device.name()},
                                     {"memory_bytes", device.memory().total_bytes},
                                     {"tables", nlohmann::ordered_json::object()},
                                     {"failed", nlohmann::ordered_json::object()}};
  std::printf("%s\n", device.name().c_str());
  Bench bench(device, Sizes{});
  for (const NamedTable& named : kTables) {
    if (!only.empty() && only != named.name) continue;
    try {
      const Table table = named.measure(bench);
      std::fputs(as_text(table).c_str(), stdout);
      document["tables"][named.name] = as_json(table);
    } catch (const Error& error) {
      std::printf("\n%s failed: %s\n", named.name, error.what());
      document["failed"][named.name] = error.what();
    }
    std::fflush(stdout);
    if (!json_path.empty()) write_json(json_path, document);
  }
  return document["failed"].empty();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures hearth's GPU kernels at the sizes of DeepSeek-V4-Flash.");
  std::string json_path, only;
  app.add_option("--json", json_path, "write the results to this file too");
  app.add_option("--only", only, "measure this table only")->check(CLI::IsMember(table_names()));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    const FoundDevice found = open_device(0);
    if (found.device == nullptr) {
      std::printf("not run: %s\n", found.why_not.c_str());
      return kNoDeviceCode;
    }
    return measure(*found.device, only, json_path) ? 0 : 1;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
