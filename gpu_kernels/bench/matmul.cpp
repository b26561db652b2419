#include <fmt/format.h>

#include "gpu_kernels/bench/tables.h"

namespace hearth::bench {
namespace {

struct Product {
  const char* name;
  int64_t rows;
  int64_t cols;
};

Row measure(Bench& bench, const Product& product, TensorType type, int64_t n) {
  const std::string what = fmt::format("{} {} x {}", product.name, product.rows, product.cols);
  Memory memory(bench);
  const int64_t bytes = product.rows * row_bytes(type, product.cols);
  const Copies weights = memory.copies(type, bytes, bench.sizes().walk_bytes);
  const Activations a = make_activations(bench, memory, n, product.cols);
  GpuMatmulParams p = {};
  p.w = {type, product.rows, product.cols, nullptr};
  p.x = a.x;
  p.xq = a.xq;
  p.n = n;
  p.y = memory.output<float>(n * product.rows);
  p.y_stride = product.rows;
  const double us = bench.us([&](int64_t call) {
    p.w.data = weights.at(call);
    bench.kernels().matmul(p, bench.handle());
  });
  memory.check_outputs(what);
  return {what, type_info(type).name, n, bench.rates(us, static_cast<double>(bytes))};
}

}  // namespace

Table matmul(Bench& bench) {
  const Sizes& s = bench.sizes();
  const Product q_b = {"q_b", s.heads_width(), s.q_rank};
  const Product output_b = {"output_b", s.dim, s.output_groups * s.output_rank};
  const Product others[] = {{"q_a", s.q_rank, s.dim},
                            {"kv", s.head_dim, s.dim},
                            {"output_a, a group", s.output_rank, s.heads_width() / s.output_groups},
                            {"shared expert's gate", s.expert_dim, s.dim},
                            {"head", s.vocab, s.dim}};
  Table table{"matmul", {}, {}};
  for (const TensorType type : {TensorType::kMXFP4, TensorType::kF8_E4M3, TensorType::kQ8_0,
                                TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K,
                                TensorType::kQ3_K, TensorType::kQ2_K, TensorType::kBF16}) {
    for (const Product& product : {q_b, output_b})
      table.rows.push_back(measure(bench, product, type, 1));
  }
  for (const Product& product : others)
    table.rows.push_back(measure(bench, product, TensorType::kQ8_0, 1));
  // As files store them.
  table.rows.push_back(measure(bench, {"router", s.experts, s.dim}, TensorType::kF32, 1));
  table.rows.push_back(measure(bench, {"mixes", (2 + s.streams) * s.streams, s.streams * s.dim},
                               TensorType::kF32, 1));
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kMXFP4}) {
    for (const Product& product : {q_b, output_b}) {
      for (const int64_t n : {2, 4, 8}) table.rows.push_back(measure(bench, product, type, n));
    }
  }
  return table;
}

}  // namespace hearth::bench
