#include <algorithm>
#include <set>

#include "gpu_kernels/bench/random_data.h"
#include "gpu_kernels/bench/tables.h"

namespace hearth::bench {
namespace {

constexpr int64_t kPickSets = 32;  // that calls take turns among

// Layers of experts, all in one buffer: gate, up and down of each.
struct Layers {
  Layers(Memory& memory, const Sizes& s, TensorType weight_type)
      : type(weight_type),
        sizes(s),
        matrix_bytes(s.expert_dim * row_bytes(type, s.dim)),
        weights(memory.copies(type, 3 * s.experts * matrix_bytes, s.expert_walk_bytes)) {
    std::vector<const unsigned char*> all;
    for (int64_t i = 0; i < weights.count * 3 * s.experts; ++i)
      all.push_back(weights.data + i * matrix_bytes);
    places = memory.upload(all);
  }

  GpuExpertMatrices matrices(int64_t call, int part) const {
    const int64_t first = (call % weights.count * 3 + part) * sizes.experts;
    if (part == 2) return {type, sizes.dim, sizes.expert_dim, places + first};
    return {type, sizes.expert_dim, sizes.dim, places + first};
  }

  TensorType type;
  Sizes sizes;
  int64_t matrix_bytes;
  Copies weights;
  const unsigned char** places;  // [layers, 3, experts]
};

// Random picks of n tokens, several sets of them.
class PickSets {
 public:
  PickSets(Bench& bench, Memory& memory, const Layers& layers, int64_t tokens, bool prefill)
      : n(tokens), used(bench.sizes().experts_used), experts(bench.sizes().experts) {
    const int64_t sets = std::max<int64_t>(1, kPickSets / n);
    const std::vector<int32_t> all = random_choices(sets * n, used, experts);
    const int32_t* picks = memory.upload(all);
    for (int64_t i = 0; i < sets; ++i) {
      GpuPicks of_set = {picks + i * n * used, {}, n, used, experts};
      if (prefill) {
        of_set.tile_size =
            bench.kernels().expert_tile_size(of_set, layers.matrices(0, 0), layers.matrices(0, 2));
      }
      if (n > 1) tile(bench, memory, layers, of_set);
      params_.push_back(of_set);
      const auto begin = all.begin() + i * n * used;
      distinct += static_cast<double>(std::set<int32_t>(begin, begin + n * used).size());
    }
    distinct /= static_cast<double>(sets);
  }

  const GpuPicks& at(int64_t call) const {
    return params_[call % static_cast<int64_t>(params_.size())];
  }
  bool in_bfloat16() const { return at(0).tile_size > kGpuTilePicks; }

  const int64_t n;
  const int32_t used, experts;
  double distinct = 0;  // experts of a set, on average

 private:
  void tile(Bench& bench, Memory& memory, const Layers& layers, GpuPicks& picks) const {
    const int64_t most = std::min(n * used, experts + n * used / picks.tile_size);
    picks.tiles = {memory.allocate<int32_t>(1), memory.allocate<int32_t>(most),
                   memory.allocate<int32_t>(most + 1), memory.allocate<int32_t>(n * used)};
    bench.kernels().tile_picks(
        {picks.picks, layers.matrices(0, 0).data, n, used, experts, picks.tiles, picks.tile_size},
        bench.handle());
  }

  std::vector<GpuPicks> params_;
};

Values rates(Bench& bench, const Layers& layers, const PickSets& picks, int matrices, double us) {
  const double bytes = picks.distinct * static_cast<double>(matrices * layers.matrix_bytes);
  Values values = bench.rates(us, bytes);
  const Sizes& s = bench.sizes();
  const double products = static_cast<double>(matrices * s.dim * s.expert_dim) *
                          static_cast<double>(picks.n * s.experts_used);
  if (picks.n > kGpuTilePicks) values.emplace_back("tflop_s", 2 * products / us * 1e-6);
  return values;
}

Row gate_and_up(Bench& bench, Memory& memory, const Layers& layers, const PickSets& picks) {
  const Sizes& s = bench.sizes();
  const int64_t count = picks.n * picks.used;
  const Activations x = make_activations(bench, memory, picks.n, s.dim);
  GpuExpertHiddenParams p = {};
  p.x = x.x;
  p.xq = x.xq;
  p.bfloat16s = x.bfloat16s;
  p.clamp = 10;
  if (picks.in_bfloat16()) {
    p.hidden_bfloat16s =
        reinterpret_cast<uint16_t*>(memory.output<uint32_t>(count * s.expert_dim / 2));
  } else {
    p.hidden = memory.output<float>(count * s.expert_dim);
  }
  const double us = bench.us([&](int64_t call) {
    p.picks = picks.at(call);
    p.gate = layers.matrices(call, 0);
    p.up = layers.matrices(call, 1);
    bench.kernels().expert_hidden(p, bench.handle());
  });
  memory.check_outputs("gate and up");
  return {"gate and up", type_info(layers.type).name, picks.n, rates(bench, layers, picks, 2, us)};
}

Row down(Bench& bench, Memory& memory, const Layers& layers, const PickSets& picks) {
  const Sizes& s = bench.sizes();
  const int64_t count = picks.n * picks.used;
  const Activations hidden = make_activations(bench, memory, count, s.expert_dim);
  GpuExpertOutputParams p = {};
  p.hidden = hidden.x;
  p.hidden_q = hidden.xq;
  p.hidden_bfloat16s = hidden.bfloat16s;
  p.terms = s.experts_used;
  p.out = memory.output<float>(count * s.dim);
  const double us = bench.us([&](int64_t call) {
    p.picks = picks.at(call);
    p.down = layers.matrices(call, 2);
    bench.kernels().expert_output(p, bench.handle());
  });
  memory.check_outputs("down");
  return {"down", type_info(layers.type).name, picks.n, rates(bench, layers, picks, 1, us)};
}

struct Batch {
  int64_t n;
  bool prefill;
};

void measure(Bench& bench, TensorType type, const std::vector<Batch>& batches, Table& table) {
  Memory weights(bench);
  const Layers layers(weights, bench.sizes(), type);
  for (const Batch& batch : batches) {
    Memory memory(bench);
    const PickSets picks(bench, memory, layers, batch.n, batch.prefill);
    table.rows.push_back(gate_and_up(bench, memory, layers, picks));
    table.rows.push_back(down(bench, memory, layers, picks));
  }
}

}  // namespace

Table experts(Bench& bench) {
  Table table{"experts", {}, {}};
  std::vector<Batch> batches = {{1, false}, {8, false}};
  for (const int64_t n : bench.sizes().prefill_tokens) batches.push_back({n, true});
  measure(bench, TensorType::kMXFP4, batches, table);
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kQ2_K,
                                TensorType::kQ3_K, TensorType::kIQ2_XXS}) {
    measure(bench, type, {{1, false}}, table);
  }
  table.notes.emplace_back("gb_s counts each expert that a call's tokens picked once");
  return table;
}

}  // namespace hearth::bench
