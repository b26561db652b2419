#include "offload/store/weight_memory.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "format/interleave.h"
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
    const WeightMemory memory(dir, {}, workers, topology, [&](int64_t done, int64_t total) {
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

TEST_CASE("experts of the layers named are interleaved, each by itself, and nothing else is") {
  const int64_t experts = 3, rows = 32, cols = 512, bytes = row_bytes(TensorType::kQ4_K, cols);
  const auto size = static_cast<uint64_t>(experts * rows * bytes);
  const test::TemporaryFolder folder;
  const std::filesystem::path path = std::filesystem::path(folder.path()) / "weights";
  std::string stored(4 * size, 0);
  for (size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<char>(i * 2654435761u >> 13);
  std::ofstream(path, std::ios::binary) << stored;
  TensorDir dir;
  dir.files.push_back({path, nullptr});
  const auto add = [&](const char* name, TensorType type, std::vector<int64_t> dims, int number) {
    dir.tensors[name] = {name, type, std::move(dims), 0, number * size, size, nullptr};
  };
  add("blk.1.stack", TensorType::kQ4_K, {cols, rows, experts}, 0);
  add("matrix", TensorType::kQ4_K, {cols, rows * experts}, 1);
  add("odd_stack", TensorType::kQ4_K, {cols, 8, experts * rows / 8}, 2);
  add("blk.2.stack", TensorType::kQ4_K, {cols, rows, experts}, 3);
  const Workers workers(2);
  WeightMemory memory(dir, {}, workers, Topology::of_this_machine(), nullptr);
  memory.interleave_experts(dir, workers, 2);

  std::vector<unsigned char> expected(stored.begin(), stored.end()), scratch(16 * bytes);
  for (int64_t row = 0; row < experts * rows; row += kInterleavedRows) {
    interleave_rows(TensorType::kQ4_K, cols, expected.data() + row * bytes, scratch.data());
  }
  for (const auto& [name, tensor] : dir.tensors) {
    CAPTURE(name);
    CHECK(tensor.interleaved == (name == "blk.1.stack"));
    CHECK(std::equal(tensor.data, tensor.data + size, expected.data() + tensor.offset));
  }
}

TEST_CASE("of a part of the layers only the parts named are in memory, with the padding foretold") {
  const TensorDir mapped = open_gguf(test::data("nano/nano.gguf"));
  const std::vector<HeldWeights> choices = {{},         {kAllLayers, false}, {3, true},
                                            {1, false}, {0, true},           {0, false}};
  const std::vector<int64_t> padding = padding_bytes(mapped, choices);
  for (size_t i = 0; i < choices.size(); ++i) {
    CAPTURE(i);
    const HeldWeights& held = choices[i];
    TensorDir dir = open_gguf(test::data("nano/nano.gguf"));
    const TensorDir before = dir;
    const WeightMemory memory(dir, held, Workers(2), Topology::of_this_machine(), nullptr);
    int64_t bytes = 0;
    for (const auto& [name, tensor] : dir.tensors) {
      CAPTURE(name);
      const int32_t layer = layer_of(tensor);
      const bool expected = tensor.dims.size() == 3 ? held.experts
                            : layer >= 0
                                ? layer < held.dense_layers
                                : held.dense_layers == kAllLayers || name == "token_embd.weight";
      CHECK((tensor.data != before.find(name)->data) == expected);
      if (expected) bytes += static_cast<int64_t>(tensor.bytes);
    }
    CHECK(memory.bytes() == bytes + padding[i]);
    CHECK((contents(dir) == contents(mapped)));
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
      const WeightMemory memory(dir, {}, Workers(2), topology, nullptr);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("model.gguf") != std::string::npos);
    }
  }
}
