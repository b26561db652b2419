#include <fmt/format.h>

#include <string_view>

#include "gpu_kernels/bench/cublas.h"
#include "gpu_kernels/bench/tables.h"

namespace hearth::bench {
namespace {

double tflop_s(const Sizes& s, int64_t n, double us) {
  return 2 * static_cast<double>(n * s.gemm_rows) * static_cast<double>(s.gemm_cols) / us * 1e-6;
}

Values measure(Bench& bench, TensorType type, int64_t n) {
  const Sizes& s = bench.sizes();
  Memory memory(bench);
  const Copies weights =
      memory.copies(type, s.gemm_rows * row_bytes(type, s.gemm_cols), s.walk_bytes);
  GpuMatmulParams p = {};
  p.w = {type, s.gemm_rows, s.gemm_cols, nullptr};
  p.bfloat16s = make_activations(bench, memory, n, s.gemm_cols).bfloat16s;
  p.n = n;
  p.y = memory.output<float>(n * s.gemm_rows);
  p.y_stride = s.gemm_rows;
  p.prefill = true;
  const double us = bench.us([&](int64_t call) {
    p.w.data = weights.at(call);
    bench.kernels().matmul(p, bench.handle());
  });
  memory.check_outputs("product on tensor cores");
  return {{"us", us}, {"tflop_s", tflop_s(s, n, us)}};
}

double cublas_us(Bench& bench, Cublas& cublas, int64_t n) {
  const Sizes& s = bench.sizes();
  Memory memory(bench);
  const Copies weights = memory.copies(
      TensorType::kBF16, s.gemm_rows * row_bytes(TensorType::kBF16, s.gemm_cols), s.walk_bytes);
  const uint16_t* x = make_activations(bench, memory, n, s.gemm_cols).bfloat16s;
  float* y = memory.output<float>(n * s.gemm_rows);
  const double us = bench.us(
      [&](int64_t call) { cublas.matmul(weights.at(call), x, y, s.gemm_rows, s.gemm_cols, n); });
  memory.check_outputs("cuBLAS");
  return us;
}

}  // namespace

Table tensor_cores(Bench& bench) {
  const Sizes& s = bench.sizes();
  Table table{"tensor_cores", {}, {}};
  const std::string shape = fmt::format("{} x {}", s.gemm_rows, s.gemm_cols);
  FoundCublas found;
  if (std::string_view(bench.kernels().name) == "cuda") {
    found = open_cublas(bench.handle());
  } else {
    found.why_not = "the device is no GPU";
  }
  for (const int64_t n : s.prefill_tokens) {
    double of_cublas = 0;
    if (found.cublas != nullptr) {
      const double us = cublas_us(bench, *found.cublas, n);
      of_cublas = tflop_s(s, n, us);
      table.rows.push_back({"cuBLAS " + shape, "BF16", n, {{"us", us}, {"tflop_s", of_cublas}}});
    }
    for (const TensorType type : {TensorType::kQ8_0, TensorType::kMXFP4, TensorType::kBF16}) {
      Row row = {shape, type_info(type).name, n, measure(bench, type, n)};
      if (of_cublas > 0)
        row.values.emplace_back("share_of_cublas", row.values.back().second / of_cublas);
      table.rows.push_back(std::move(row));
    }
  }
  if (found.cublas == nullptr) table.notes.push_back("cuBLAS left out: " + found.why_not);
  return table;
}

}  // namespace hearth::bench
