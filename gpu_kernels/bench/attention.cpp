#include <algorithm>
#include <cmath>

#include "gpu_kernels/bench/random_data.h"
#include "gpu_kernels/bench/tables.h"

namespace hearth::bench {
namespace {

constexpr int64_t kValueBytes = 2;   // bfloat16
constexpr int64_t kSelections = 32;  // lists of selected entries that calls take turns among

// Caches of one sequence in as many layers as make up the walk, full up to the context.
struct Caches {
  Caches(Memory& memory, const Sizes& s, int64_t n, int64_t entry_values, bool of_index)
      : slots(s.window + n - 1),
        window_bytes(slots * s.head_dim * kValueBytes),
        rows(memory.copies(TensorType::kBF16, window_bytes + entry_values * kValueBytes,
                           s.walk_bytes)) {
    std::vector<GpuSequenceCache> all;
    for (int64_t i = 0; i < rows.count; ++i) {
      const GpuCompressedCache compressed = {rows.at(i) + window_bytes, nullptr};
      GpuSequenceCache cache = {rows.at(i), slots, {}, {}};
      (of_index ? cache.index : cache.entries) = compressed;
      all.push_back(cache);
    }
    places = memory.upload(all);
  }

  const GpuSequenceCache* at(int64_t call) const { return places + call % rows.count; }

  int64_t slots;
  int64_t window_bytes;
  Copies rows;
  GpuSequenceCache* places;
};

// The last n positions of the context.
const GpuRow* last_rows(Memory& memory, const Sizes& s, int64_t n) {
  std::vector<GpuRow> rows;
  for (int64_t i = s.context - n; i < s.context; ++i) rows.push_back({i, 0, 0});
  return memory.upload(rows);
}

struct Kind {
  const char* name;
  int32_t ratio;  // 0 without entries
  bool selects;
};

Row attend(Bench& bench, const Kind& kind, int64_t n, bool prefill) {
  const Sizes& s = bench.sizes();
  Memory memory(bench);
  const int64_t entries = kind.ratio > 0 ? s.context / kind.ratio : 0;
  const Caches caches(memory, s, n, entries * s.head_dim, false);
  const int64_t lists = std::max<int64_t>(1, kSelections / n);
  GpuAttentionParams p = {};
  p.q = memory.floats(n * s.heads_width());
  p.rows = last_rows(memory, s, n);
  p.kv_type = KvType::kBF16;
  p.n = n;
  p.heads = s.heads;
  p.dim = s.head_dim;
  p.window = s.window;
  p.ratio = kind.ratio;
  p.top_k = s.top_k;
  p.sinks = memory.floats(s.heads);
  p.scale = 1 / std::sqrt(static_cast<float>(s.head_dim));
  p.prefill = prefill;
  if (!prefill) {
    p.scratch =
        memory.allocate<float>(bench.kernels().attention_scratch_floats(n, s.heads, s.head_dim));
  }
  p.out = memory.output<float>(n * s.heads_width());
  const int32_t* selected = nullptr;
  if (kind.selects) {
    // Entries that the first row sees already.
    selected = memory.upload(random_choices(lists * n, s.top_k, (s.context - n) / kind.ratio));
    p.selected_count =
        memory.upload(std::vector<int32_t>(static_cast<size_t>(n), static_cast<int32_t>(s.top_k)));
  }
  const double us = bench.us([&](int64_t call) {
    p.caches = caches.at(call);
    if (kind.selects) p.selected = selected + call % lists * n * s.top_k;
    bench.kernels().attention(p, bench.handle());
  });
  memory.check_outputs(kind.name);
  const double rows_seen = static_cast<double>(s.window + (kind.selects ? s.top_k : entries));
  if (n == 1) return {kind.name, "", n, bench.rates(us, rows_seen * s.head_dim * kValueBytes)};
  const double products = 2 * rows_seen * static_cast<double>(n * s.heads_width());
  return {kind.name, "", n, {{"us", us}, {"tflop_s", 2 * products / us * 1e-6}}};
}

// The scores of all entries, then the best of them.
void index(Bench& bench, int64_t n, Table& table) {
  const Sizes& s = bench.sizes();
  Memory memory(bench);
  const int64_t entries = s.context / s.csa_ratio;
  const Caches caches(memory, s, 1, entries * s.index_dim, true);
  GpuIndexScoresParams p = {};
  p.q = memory.floats(n * s.index_heads * s.index_dim);
  p.head_weights = memory.floats(n * s.index_heads);
  p.rows = last_rows(memory, s, n);
  p.kv_type = KvType::kBF16;
  p.n = n;
  p.heads = s.index_heads;
  p.dim = s.index_dim;
  p.scale = 1 / std::sqrt(static_cast<float>(s.index_heads * s.index_dim));
  p.ratio = s.csa_ratio;
  p.entries_max = entries;
  p.scores = memory.floats(n * entries);  // rows before the last see less than all
  p.scores_stride = entries;
  double us = bench.us([&](int64_t call) {
    p.caches = caches.at(call);
    bench.kernels().index_scores(p, bench.handle());
  });
  if (n == 1) {
    const double bytes = static_cast<double>(entries * s.index_dim * kValueBytes);
    table.rows.push_back({"index_scores", "", n, bench.rates(us, bytes)});
  } else {
    const double products = static_cast<double>(n * entries) * s.index_heads * s.index_dim;
    table.rows.push_back(
        {"index_scores", "", n, {{"us", us}, {"tflop_s", 2 * products / us * 1e-6}}});
  }
  GpuSelectTopKParams select = {};
  select.scores = p.scores;
  select.scores_stride = entries;
  select.rows = p.rows;
  select.n = n;
  select.ratio = s.csa_ratio;
  select.top_k = s.top_k;
  select.selected = memory.output<int32_t>(n * s.top_k);
  select.counts = memory.output<int32_t>(n);
  us = bench.us([&](int64_t) { bench.kernels().select_top_k(select, bench.handle()); });
  memory.check_outputs("select_top_k");
  table.rows.push_back({"select_top_k", "", n, {{"us", us}}});
}

}  // namespace

Table attention(Bench& bench) {
  const Sizes& s = bench.sizes();
  const Kind kinds[] = {{"attention, window", 0, false},
                        {"attention, CSA", s.csa_ratio, true},
                        {"attention, HCA", s.hca_ratio, false}};
  Table table{"attention", {}, {}};
  for (const Kind& kind : kinds) table.rows.push_back(attend(bench, kind, 1, false));
  index(bench, 1, table);
  for (const Kind& kind : kinds)
    table.rows.push_back(attend(bench, kind, s.prefill_tokens.front(), true));
  index(bench, s.prefill_tokens.front(), table);
  return table;
}

}  // namespace hearth::bench
