// What the planner takes GPU kernels for, beside the tables they were measured in
// (gpu_kernels/README.md) and on cards they were not.
#include "offload/plan/gpu_rates.h"

#include <doctest/doctest.h>

#include <string>

#include "offload/machine/machine_json.h"
#include "support.h"

using namespace hearth;

namespace {

Gpu gpu_of(const char* profile) { return read_machine(test::profiles() / profile).gpus.at(0); }

MatrixUse use_of(TensorType type, int64_t rows, int64_t cols) {
  return {type, rows * cols, rows * row_bytes(type, cols)};
}

constexpr int64_t kPicks = 6, kExperts = 256;
MatrixUse gate_and_up(TensorType type, int64_t experts) {
  return use_of(type, experts * 2 * 2048, 4096);
}

double us(const BoundSeconds& seconds) { return 1e6 * seconds.total(); }

}  // namespace

TEST_CASE("products of one token take what an H200 measured") {
  const Gpu gpu = gpu_of("h200-16c-125g.json");
  const GpuRates rates(gpu);
  struct Row {
    TensorType type;
    bool of_experts;
    double us;
  };
  constexpr Row kRows[] = {{TensorType::kBF16, false, 28},  {TensorType::kQ8_0, false, 15},
                           {TensorType::kQ6_K, false, 17},  {TensorType::kQ5_K, false, 16},
                           {TensorType::kQ4_K, false, 14},  {TensorType::kF8_E4M3, false, 23},
                           {TensorType::kMXFP4, false, 16}, {TensorType::kQ3_K, false, 17},
                           {TensorType::kQ2_K, false, 13},  {TensorType::kQ8_0, true, 36},
                           {TensorType::kQ4_K, true, 38},   {TensorType::kMXFP4, true, 43},
                           {TensorType::kQ3_K, true, 41},   {TensorType::kQ2_K, true, 33},
                           {TensorType::kIQ2_XXS, true, 38}};
  for (const Row& row : kRows) {
    CAPTURE(std::string(type_info(row.type).name));
    const MatrixUse use =
        row.of_experts ? gate_and_up(row.type, kPicks) : use_of(row.type, 4096, 8192);
    const double start_and_end = 4;
    CHECK(start_and_end + us(rates.multiply({use}, 1, false)) ==
          doctest::Approx(row.us).epsilon(0.15));
  }
}

TEST_CASE("products of prompts take what an H200 measured") {
  const Gpu gpu = gpu_of("h200-16c-125g.json");
  const GpuRates rates(gpu);
  const auto tflop_s = [](const MatrixUse& use, double tokens, const BoundSeconds& seconds) {
    return 1e-12 * matmul_flops(static_cast<double>(use.weights), tokens) / seconds.total();
  };
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kMXFP4, TensorType::kBF16}) {
    const MatrixUse use = use_of(type, 8192, 4096);
    CHECK(tflop_s(use, 512, rates.multiply({use}, 512, true)) ==
          doctest::Approx(201).epsilon(0.11));
    CHECK(us(rates.multiply({use}, 500, true)) == us(rates.multiply({use}, 512, true)));
  }
  const MatrixUse use = gate_and_up(TensorType::kMXFP4, kExperts);
  for (const auto& [tokens, measured] : {std::pair{512.0, 27.0}, {2048.0, 55.0}}) {
    const double each = tokens * kPicks / kExperts;
    CHECK(tflop_s(use, each, rates.multiply_experts({use}, each, true)) ==
          doctest::Approx(measured).epsilon(0.05));
  }
  // Fewer tokens never take longer than narrow tiles of them, nor less than one.
  double before = us(rates.multiply_experts({use}, 1, false));
  for (double tokens = 1; tokens <= 64; tokens += 0.5) {
    const double now = us(rates.multiply_experts({use}, tokens, true));
    CHECK(now >= before);
    before = now;
  }
}

TEST_CASE("attention takes what an H200 measured") {
  const Gpu gpu = gpu_of("h200-16c-125g.json");
  const GpuRates rates(gpu);
  const auto flops = [](double rows) { return 4 * rows * 64 * 512; };
  const double keys = 131072 / 4, window = 128, index_flops = 2 * keys * 64 * 128;
  const auto decode = [&](int32_t ratio, double rows) {
    return 1e6 * rates.attend({ratio, 1, flops(rows), 0, 0}, false);
  };
  CHECK(decode(0, window) == doctest::Approx(17).epsilon(0.03));
  CHECK(decode(128, window + 1024) == doctest::Approx(33).epsilon(0.03));
  const double choice = 4;  // a kernel that chooses all
  CHECK(decode(4, window + 512) - choice == doctest::Approx(27).epsilon(0.08));
  const double scored = 1e6 * rates.attend({4, 1, flops(window + 512), index_flops, keys}, false) -
                        decode(4, window + 512) + choice;
  CHECK(scored == doctest::Approx(25 + 40).epsilon(0.03));
  const double of_prompt = rates.attend({128, 512, 512 * flops(window + 1024), 0, 0}, true);
  CHECK(1e-12 * 512 * flops(window + 1024) / of_prompt == doctest::Approx(139).epsilon(0.03));
}

TEST_CASE("what instructions bound goes with processors and clock, the rest with memory") {
  const Gpu h200 = gpu_of("h200-16c-125g.json");
  const std::vector<MatrixUse> experts = {gate_and_up(TensorType::kMXFP4, kPicks)};
  CHECK(GpuRates(h200).multiply(experts, 1, false).memory == 0);
  Gpu faster = h200;
  faster.processors *= 2;
  faster.clock_ghz *= 1.5;
  CHECK(us(GpuRates(faster).multiply(experts, 1, false)) ==
        doctest::Approx(us(GpuRates(h200).multiply(experts, 1, false)) / 3));
  // More processors at a higher clock on slower memory: it is the bound of all but the smallest.
  const Gpu rtx5090 = gpu_of("rtx5090-2ch-256g.json");
  const GpuRates rates(rtx5090);
  for (const TensorType type : {TensorType::kMXFP4, TensorType::kQ8_0, TensorType::kQ2_K}) {
    const MatrixUse use = gate_and_up(type, kPicks);
    const BoundSeconds seconds = rates.multiply({use}, 1, false);
    CHECK(seconds.arithmetic == 0);
    CHECK(static_cast<double>(use.bytes) / seconds.memory * 1e-9 ==
          doctest::Approx(0.85 * rtx5090.read_gb_s));
  }
  const BoundSeconds seconds =
      rates.multiply({gate_and_up(TensorType::kIQ2_XXS, kPicks)}, 1, false);
  CHECK(seconds.memory == 0);
  CHECK(seconds.arithmetic > 0);
}

TEST_CASE("a kernel costs its launch where it is not part of a graph, and layers have theirs") {
  Gpu gpu = gpu_of("h200-16c-125g.json");
  const GpuRates rates(gpu);
  const double window = rates.layer_kernels(0, false);
  CHECK(rates.layer_kernels(128, false) - window == doctest::Approx(2 * 4e-6));
  CHECK(rates.layer_kernels(4, false) - window == doctest::Approx(5 * 4e-6));
  gpu.launch_us = 10;
  CHECK(rates.layer_kernels(0, false) == window);
  CHECK(rates.layer_kernels(0, true) - window == doctest::Approx(23 * 6e-6));
  CHECK(rates.head_kernels(false) < window);
}
