// The measurements run on any team and any table, and their figures belong together.
#include "offload/machine/measure.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "cpu_kernels/registry.h"
#include "format/dequantize.h"
#include "offload/machine/team.h"
#include "offload/machine/timing.h"

using namespace hearth;

namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr MeasureTimes kShort{1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4};

}  // namespace

TEST_CASE("probe memory makes ordinary weights in every measured format") {
  const Workers workers(2);
  const ProbeMemory memory(workers, Topology("core:2 pu:1"), kMiB);
  CHECK(memory.nodes() == 1);
  REQUIRE(memory.of_node(0).size() == kMiB);
  for (const TensorType type : measured_formats()) {
    CAPTURE(type_info(type).name);
    const int64_t count = 200 * type_info(type).block_size;
    std::vector<float> weights(static_cast<size_t>(count));
    dequantize(type, memory.of_node(0).data(), count, weights.data());
    const auto is_ordinary = [](float weight) {
      return (std::isnormal(weight) || weight == 0) && std::abs(weight) < 1e20f;
    };
    CHECK(std::ranges::all_of(weights, is_ordinary));
    CHECK(std::set(weights.begin(), weights.end()).size() > 8);
  }
}

TEST_CASE("memory is measured on one node and across two") {
  for (const int nodes : {1, 2}) {
    CAPTURE(nodes);
    const Workers workers(2, nodes);
    const Topology topology(nodes == 1 ? "numa:1 core:2 pu:1" : "numa:2 core:1 pu:1");
    const ProbeMemory memory(workers, topology, 64 * kMiB);
    Machine machine = topology.describe();
    measure_memory(choose_kernels(""), workers, memory, kShort, machine);
    CHECK(machine.read_gb_s > 0);
    REQUIRE(std::ssize(machine.nodes) == nodes);
    for (size_t i = 0; i < machine.nodes.size(); ++i) {
      const MemoryNode& node = machine.nodes[i];
      CHECK(node.copy_gb_s > 0);
      REQUIRE(std::ssize(node.read_from_gb_s) == nodes);
      CHECK(node.read_gb_s == node.read_from_gb_s[i]);
      for (const double rate : node.read_from_gb_s) {
        CHECK(rate > 0);
        CHECK(rate < 5000);  // more than any memory gives: nothing was read
      }
    }
  }
}

TEST_CASE("every table and format gets its rates, by ascending tokens") {
  const Workers workers(2);
  const ProbeMemory memory(workers, Topology("core:2 pu:1"), 2 * kMiB);
  for (const Kernels* kernels : usable_kernels()) {
    CAPTURE(kernels->name);
    const bool is_best = kernels == usable_kernels().front();
    const std::vector<TensorType> some = {TensorType::kMXFP4, TensorType::kBF16};
    int calls = 0;
    const IsaRates rates = measure_isa(
        *kernels, workers, memory, is_best ? measured_formats() : std::span<const TensorType>(some),
        kShort, [&] { ++calls; });
    CHECK(rates.name == kernels->name);
    CHECK(rates.matmul_gflop_s > 0);
    CHECK(rates.attention_gflop_s > 0);
    CHECK(rates.prompt_attention_gflop_s > 0);
    const auto is_interleaved = [](const FormatRates& format) {
      return format.format.ends_with(" interleaved");
    };
    const int64_t interleaved = std::ranges::count_if(rates.formats, is_interleaved);
    CHECK(interleaved == (!kernels->reads_interleaved ? 0 : is_best ? 3 : 1));
    REQUIRE(std::ssize(rates.formats) == calls + interleaved);
    CHECK(calls == (is_best ? std::ssize(measured_formats()) : std::ssize(some)));
    for (const FormatRates& format : rates.formats) {
      CAPTURE(format.format);
      CHECK(is_format_name(format.format));
      CHECK(format.stream_gb_s > 0);
      REQUIRE(format.matmul.size() == 6);
      CHECK(format.matmul.front().tokens == 1);
      for (size_t i = 0; i < 6; ++i) {
        CHECK(format.matmul[i].gflop_s > 0);
        if (i > 0) CHECK(format.matmul[i].tokens > format.matmul[i - 1].tokens);
      }
    }
  }
}

TEST_CASE("a loop takes some time, but not much") {
  const double us = measure_loop_us(Workers(2));
  CHECK(us > 0);
  CHECK(us < 1e6);
}

TEST_CASE("rates are medians, of three passes at least") {
  int passes = 0;
  const double rate = median_rate(0, [&] { return ++passes == 2 ? 1e30 : 1.0; });
  CHECK(passes == 3);
  CHECK(rate < 1e20);
  CHECK(median({5, 1, 9}) == 5);
}

TEST_CASE("probe memory never takes more than a quarter of what is free") {
  CHECK(ProbeMemory::default_bytes(1) <= int64_t{2} << 30);
  CHECK(ProbeMemory::default_bytes(1) >= 64 * kMiB);
  CHECK_THROWS_WITH_AS(ProbeMemory::default_bytes(1 << 20), doctest::Contains("too little"), Error);
}

TEST_CASE("a team has a thread a core, or as many as were asked for") {
  CHECK(choose_threads(0) == Topology::of_this_machine().cores());
  CHECK(choose_threads(3) == 3);
  CHECK_THROWS_AS(choose_threads(-1), Error);
  CHECK_THROWS_AS(choose_threads(100000), Error);
  CHECK(make_team(4, Topology("numa:2 core:2 pu:1")).nodes() == 2);
  CHECK(make_team(3, Topology("numa:2 core:2 pu:1")).nodes() == 1);
}

TEST_CASE("a team has the threads that each node was given") {
  const Topology topology("numa:2 core:4 pu:2");
  const Workers part = make_team(NodeShares({2, 1}), topology);
  CHECK(part.threads() == 3);
  CHECK(part.nodes() == 2);
  CHECK(part.node_of(1) == 0);
  CHECK(part.node_of(2) == 1);
  CHECK(make_team(NodeShares({3}), topology).nodes() == 1);
  CHECK(make_team(NodeShares({4, 4}), topology).threads() == 8);
}
