#include "offload/store/weight_memory.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "support.h"

using namespace hearth;

namespace {

std::vector<std::string> contents(const TensorDir& dir) {
  std::vector<std::string> result;
  for (const auto& [name, tensor] : dir.tensors) {
    result.emplace_back(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
  }
  return result;
}

}  // namespace

TEST_CASE("weights in memory are the file's, on machines of one node and of more") {
  const TensorDir mapped = open_gguf(test::data("nano/nano.gguf"));
  for (const char* machine : {"numa:1 core:2 pu:1", "numa:2 core:2 pu:1", "numa:3 core:1 pu:1"}) {
    const Topology topology{std::string(machine)};
    std::vector<int> threads(topology.nodes(), 1);
    threads.front() = 2;  // shares need not be even
    const Workers workers{NodeShares(threads)};
    TensorDir dir = open_gguf(test::data("nano/nano.gguf"));
    int64_t last = 0, all = 0;
    const WeightMemory memory(dir, HeldWeights::kAll, workers, topology, [&](int64_t done, int64_t total) {
      CHECK(done > last);
      last = done;
      all = total;
    });
    CHECK(last == all);
    CHECK(all >= tensor_bytes(dir));
    CHECK((contents(dir) == contents(mapped)));
    for (const auto& [name, tensor] : dir.tensors) CHECK(tensor.data != mapped.find(name)->data);
  }
}

TEST_CASE("a file that was cut off or is gone is an error that names it") {
  const test::TemporaryFolder folder;
  const std::filesystem::path path = std::filesystem::path(folder.path()) / "model.gguf";
  std::filesystem::copy_file(test::data("nano/nano.gguf"), path);
  TensorDir dir = open_gguf(path);
  const Topology& topology = Topology::of_this_machine();
  for (const bool gone : {false, true}) {
    if (gone) {
      std::filesystem::remove(path);
    } else {
      std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    }
    try {
      const WeightMemory memory(dir, HeldWeights::kAll, Workers(2), topology, nullptr);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("model.gguf") != std::string::npos);
    }
  }
}
