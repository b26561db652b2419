// Multi-query attention with one shared K = V row a token: low-rank queries, a window of raw rows,
// compressed entries behind it, sinks, and grouped low-rank output.
#include <algorithm>
#include <array>
#include <cmath>

#include "model/cache_reads.h"
#include "model/step.h"

namespace hearth {
namespace {

LayerKind kind_of(const Step& step, int32_t layer) { return step.config.kinds[layer]; }

const RopeAngles& angles_of(const Step& step, int32_t layer) {
  return kind_of(step, layer) == LayerKind::kWindow ? step.act.plain_angles
                                                    : step.act.compressed_angles;
}

// Rotates `heads` vectors of `dim` values by their row's position.
void rotate(const Step& step, const RopeAngles& angles, int64_t row, float* x, int32_t heads,
            int32_t dim, bool inverse = false) {
  const int64_t at = row * (step.config.rope_dim / 2);
  step.compute.kernels.rope(
      {.x = x,
       .heads = heads,
       .dim = dim,
       .rope_dim = step.config.rope_dim,
       .cosines = angles.cosines.as<float>() + at,
       .sines = (inverse ? angles.minus_sines : angles.sines).as<float>() + at});
}

// Everything that reads the sub-layer's input: query and KV down-projections, compressors, index
// weights.
void project_input(Step& step, int32_t layer, const AttentionWeights& weights) {
  Activations& act = step.act;
  ActivationRows& x = act.x.rows();
  const int64_t n = step.batch.n();
  auto product = [&](const Matrix& w, float* y, int64_t y_stride) {
    round_rows_for(step.compute, w, x, n);
    return Product{w, &x, nullptr, n, y, y_stride};
  };
  auto compressor = [&](const CompressorWeights& w, float* inputs) {
    const int64_t lanes = w.value.rows;
    return std::array{product(w.value, inputs, 2 * lanes),
                      product(w.gate, inputs + lanes, 2 * lanes)};
  };
  {
    StageTotals& totals = step.compute.clock[Stage::kAttentionProjections];
    const StageTimer timer(totals);
    const std::array products = {product(weights.q_a, act.q_low.values(), step.config.q_rank),
                                 product(weights.kv, act.kv.as<float>(), step.config.head_dim)};
    multiply(step.compute, totals, products);
  }
  if (kind_of(step, layer) == LayerKind::kWindow) return;
  StageTotals& totals = step.compute.clock[Stage::kCompressor];
  const StageTimer timer(totals);
  multiply(step.compute, totals, compressor(weights.compressor, act.entry_inputs.as<float>()));
  if (kind_of(step, layer) != LayerKind::kCsa) return;
  multiply(step.compute, totals, compressor(weights.indexer.keys, act.index_inputs.as<float>()));
  const Product head_mix =
      product(weights.indexer.head_mix, act.index_weights.as<float>(), step.config.index_heads);
  multiply(step.compute, totals, {&head_mix, 1});
}

// kv rows, normed and rotated, into each sequence's ring.
void store_window_rows(Step& step, int32_t layer, const AttentionWeights& weights) {
  const StageTimer timer(step.compute.clock[Stage::kAttentionProjections]);
  const ModelConfig& config = step.config;
  const Kernels& kernels = step.compute.kernels;
  step.compute.workers.for_range(step.batch.n(), 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const BatchRow& at = step.batch.rows[row];
      float* kv = step.act.kv.as<float>() + row * config.head_dim;
      kernels.rms_norm(kv, weights.kv_norm.data(), config.rms_eps, 1, config.head_dim, kv);
      rotate(step, angles_of(step, layer), row, kv, 1, config.head_dim);
      kernels.store_kv(kv, config.head_dim, at.cache->type(),
                       at.cache->window_row(at.cache->layer(layer), at.position));
    }
  });
}

// q = RoPE(rms(Wq_b RMSNorm(Wq_a x))) per head; in CSA layers the index heads from the same
// low-rank query.
void project_queries(Step& step, int32_t layer, const AttentionWeights& weights) {
  const ModelConfig& config = step.config;
  const Kernels& kernels = step.compute.kernels;
  Activations& act = step.act;
  const int64_t n = step.batch.n();
  StageTotals& totals = step.compute.clock[Stage::kAttentionProjections];
  const StageTimer timer(totals);

  ActivationRows& q_low = act.q_low.fresh();
  step.compute.workers.for_range(n, 4, [&](int64_t begin, int64_t end, int) {
    float* rows = q_low.values + begin * config.q_rank;
    kernels.rms_norm(rows, weights.q_a_norm.data(), config.rms_eps, end - begin, config.q_rank,
                     rows);
  });
  const int64_t q_width = static_cast<int64_t>(config.heads) * config.head_dim;
  round_rows_for(step.compute, weights.q_b, q_low, n);
  std::array<Product, 2> products = {
      Product{weights.q_b, &q_low, nullptr, n, act.q.as<float>(), q_width}};
  size_t count = 1;
  const bool indexed = kind_of(step, layer) == LayerKind::kCsa;
  if (indexed) {
    round_rows_for(step.compute, weights.indexer.query, q_low, n);
    products[count++] = {weights.indexer.query,
                         &q_low,
                         nullptr,
                         n,
                         act.index_q.as<float>(),
                         static_cast<int64_t>(config.index_heads) * config.index_dim};
  }
  multiply(step.compute, totals, std::span(products).first(count));

  const RopeAngles& angles = angles_of(step, layer);
  step.compute.workers.for_range(n, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* q = act.q.as<float>() + row * q_width;
      kernels.rms_norm(q, nullptr, config.rms_eps, config.heads, config.head_dim, q);
      rotate(step, angles, row, q, config.heads, config.head_dim);
      if (!indexed) continue;
      float* index_q = act.index_q.as<float>() + row * config.index_heads * config.index_dim;
      rotate(step, angles, row, index_q, config.index_heads, config.index_dim);
    }
  });
}

// Pointers to the rows a query sees: its window, then its compressed entries.
int32_t gather_rows(const Step& step, int32_t layer, int32_t row, const void** rows) {
  const BatchRow& at = step.batch.rows[row];
  const LayerCache& cache = at.cache->layer(layer);
  int32_t n = 0;
  for (int64_t p = std::max<int64_t>(0, at.position - step.config.window + 1); p <= at.position;
       ++p) {
    rows[n++] = at.cache->window_row(cache, p);
  }
  switch (kind_of(step, layer)) {
    case LayerKind::kWindow:
      break;
    case LayerKind::kHca:
      for (int64_t e = 0; e < (at.position + 1) / cache.entries.ratio; ++e) {
        rows[n++] = cache.entries.row(e, at.cache->type());
      }
      break;
    case LayerKind::kCsa: {
      const int32_t* selected =
          step.act.selected.as<int32_t>() + static_cast<int64_t>(row) * step.config.index_top_k;
      for (int32_t i = 0; i < step.act.selected_count.as<int32_t>()[row]; ++i) {
        rows[n++] = cache.entries.row(selected[i], at.cache->type());
      }
    }
  }
  return n;
}

// Heads one worker takes: all of them when there are many rows, fewer when the rows alone don't
// fill the workers.
int32_t head_grain(const Step& step) {
  constexpr int32_t kHeadTile = 4;  // of the kernel
  const int32_t pieces = 4 * step.compute.workers.threads() / step.batch.n();
  const int32_t grain = step.config.heads / std::max(pieces, 1);
  return std::max(grain / kHeadTile * kHeadTile, std::min(kHeadTile, step.config.heads));
}

void attend(Step& step, int32_t layer, const AttentionWeights& weights) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  StageTotals& totals = step.compute.clock[Stage::kAttention];
  const StageTimer timer(totals);
  const int64_t q_width = static_cast<int64_t>(config.heads) * config.head_dim;
  const int32_t grain = head_grain(step);
  const int64_t head_pieces = (config.heads + grain - 1) / grain;
  float* out = act.attention_out.fresh().values;

  step.compute.workers.for_range(
      step.batch.n() * head_pieces, 1, [&](int64_t begin, int64_t end, int thread) {
        const void** rows = act.attended_rows.as<const void*>() + thread * act.attended_max;
        for (int64_t piece = begin; piece < end; ++piece) {
          const int32_t row = static_cast<int32_t>(piece / head_pieces);
          const int32_t head = static_cast<int32_t>(piece % head_pieces) * grain;
          step.compute.kernels.attention(
              {.q = act.q.as<float>() + row * q_width,
               .rows = rows,
               .kv_type = step.batch.rows[row].cache->type(),
               .n_rows = gather_rows(step, layer, row, rows),
               .dim = config.head_dim,
               .head_begin = head,
               .head_end = std::min(head + grain, config.heads),
               .sinks = weights.sinks.data(),
               .scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
               .scores =
                   act.attention_scores.as<float>() + thread * config.heads * act.attended_max,
               .out = out + row * q_width,
               .prefill = step.compute.prefill});
        }
      });
}

// Outputs lose their rotation: K = V rows carry their own position's, the query's is taken out
// here.
void unrotate_outputs(Step& step, int32_t layer) {
  const StageTimer timer(step.compute.clock[Stage::kAttention]);
  const ModelConfig& config = step.config;
  const int64_t width = static_cast<int64_t>(config.heads) * config.head_dim;
  float* out = step.act.attention_out.values();
  step.compute.workers.for_range(step.batch.n(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      rotate(step, angles_of(step, layer), row, out + row * width, config.heads, config.head_dim,
             true);
    }
  });
}

// out = Wo_b concat_g (Wo_a[g] o_group_g).
void project_output(Step& step, const AttentionWeights& weights) {
  const ModelConfig& config = step.config;
  Activations& act = step.act;
  const int32_t n = step.batch.n();
  StageTotals& totals = step.compute.clock[Stage::kAttentionProjections];
  const StageTimer timer(totals);

  const int32_t groups = config.output_groups;
  const int64_t grouped_width = static_cast<int64_t>(groups) * config.output_rank;
  ActivationRows& out = act.attention_out.rows();
  round_rows_for(step.compute, weights.output_a, out, int64_t{n} * groups);
  int32_t* group_rows = act.group_rows.as<int32_t>();  // [groups, n]
  act.products.clear();
  for (int32_t g = 0; g < groups; ++g) {
    for (int32_t i = 0; i < n; ++i) group_rows[g * n + i] = i * groups + g;
    act.products.push_back({expert_slice(weights.output_a, groups, g), &out, group_rows + g * n, n,
                            act.grouped_out.values() + g * config.output_rank, grouped_width});
  }
  multiply(step.compute, totals, act.products);

  ActivationRows& grouped = act.grouped_out.fresh();
  round_rows_for(step.compute, weights.output_b, grouped, n);
  const Product output{weights.output_b,  &grouped,          nullptr, n,
                       act.output_row(0), act.streams_stride};
  multiply(step.compute, totals, {&output, 1});
}

}  // namespace

void attention(Step& step, int32_t layer, const AttentionWeights& weights) {
  project_input(step, layer, weights);
  store_window_rows(step, layer, weights);
  project_queries(step, layer, weights);
  if (kind_of(step, layer) != LayerKind::kWindow) {
    const StageTimer timer(step.compute.clock[Stage::kCompressor]);
    append_entries(step, layer, weights.compressor, step.act.entry_inputs.as<float>(),
                   &LayerCache::entries);
  }
  if (kind_of(step, layer) == LayerKind::kCsa) {
    const StageTimer timer(step.compute.clock[Stage::kIndexer]);
    append_entries(step, layer, weights.indexer.keys, step.act.index_inputs.as<float>(),
                   &LayerCache::index);
    select_entries(step, layer);
  }
  attend(step, layer, weights);
  unrotate_outputs(step, layer);
  for (const BatchRow& row : step.batch.rows) {
    count_attention(step.config, kind_of(step, layer), row.position, row.cache->type(),
                    step.compute.clock[Stage::kAttention]);
  }
  project_output(step, weights);
}

}  // namespace hearth
