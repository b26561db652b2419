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
struct PickSets {
  PickSets(Bench& bench, Memory& memory, const Layers& layers, int64_t tokens)
      : n(tokens), used(bench.sizes().experts_used), experts(bench.sizes().experts) {
    const int64_t sets = std::max<int64_t>(1, kPickSets / n);
    const std::vector<int32_t> all = random_choices(sets * n, used, experts);
    const int32_t* picks = memory.upload(all);
    for (int64_t i = 0; i < sets; ++i) {
      GpuPicks of_set = {picks + i * n * used, {}, n, used, experts};
      if (n > 1) of_set.tiles = tile(bench, memory, layers, of_set);
      params.push_back(of_set);
      const auto begin = all.begin() + i * n * used;
      distinct += static_cast<double>(std::set<int32_t>(begin, begin + n * used).size());
    }
    distinct /= static_cast<double>(sets);
  }

  GpuPickTiles tile(Bench& bench, Memory& memory, const Layers& layers, const GpuPicks& p) const {
    const int64_t most = std::min(n * used, experts + n * used / kGpuTilePicks);
    const GpuPickTiles tiles = {memory.allocate<int32_t>(1), memory.allocate<int32_t>(most),
                                memory.allocate<int32_t>(most + 1),
                                memory.allocate<int32_t>(n * used)};
    bench.kernels().tile_picks({p.picks, layers.matrices(0, 0).data, n, used, experts, tiles},
                               bench.handle());
    return tiles;
  }

  const GpuPicks& at(int64_t call) const {
    return params[call % static_cast<int64_t>(params.size())];
  }

  int64_t n;
  int32_t used, experts;
  double distinct = 0;  // experts of a set, on average
  std::vector<GpuPicks> params;
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

void measure(Bench& bench, TensorType type, const std::vector<int64_t>& tokens, Table& table) {
  const Sizes& s = bench.sizes();
  const char* name = type_info(type).name;
  Memory memory(bench);
  const Layers layers(memory, s, type);
  for (const int64_t n : tokens) {
    const PickSets picks(bench, memory, layers, n);
    const int64_t count = n * s.experts_used;
    const Activations x = make_activations(bench, memory, n, s.dim);
    GpuExpertHiddenParams hidden = {};
    hidden.x = x.x;
    hidden.xq = x.xq;
    hidden.clamp = 10;
    hidden.hidden = memory.output<float>(count * s.expert_dim);
    double us = bench.us([&](int64_t call) {
      hidden.picks = picks.at(call);
      hidden.gate = layers.matrices(call, 0);
      hidden.up = layers.matrices(call, 1);
      bench.kernels().expert_hidden(hidden, bench.handle());
    });
    memory.check_outputs("gate and up");
    table.rows.push_back({"gate and up", name, n, rates(bench, layers, picks, 2, us)});

    const Activations y = make_activations(bench, memory, count, s.expert_dim);
    GpuExpertOutputParams output = {};
    output.hidden = y.x;
    output.hidden_q = y.xq;
    output.terms = s.experts_used;
    output.out = memory.output<float>(count * s.dim);
    us = bench.us([&](int64_t call) {
      output.picks = picks.at(call);
      output.down = layers.matrices(call, 2);
      bench.kernels().expert_output(output, bench.handle());
    });
    memory.check_outputs("down");
    table.rows.push_back({"down", name, n, rates(bench, layers, picks, 1, us)});
  }
}

}  // namespace

Table experts(Bench& bench) {
  Table table{"experts", {}, {}};
  measure(bench, TensorType::kMXFP4, {1, 8, bench.sizes().prefill_tokens}, table);
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kQ2_K,
                                TensorType::kQ3_K, TensorType::kIQ2_XXS}) {
    measure(bench, type, {1}, table);
  }
  table.notes.emplace_back("gb_s counts each expert that a call's tokens picked once");
  return table;
}

}  // namespace hearth::bench
