// Multi-query attention, step by step as in model/attention.cpp.
#include <algorithm>
#include <cmath>

#include "model/device/step.h"

namespace hearth {
namespace {

LayerKind kind_of(const DeviceStep& step, int32_t layer) { return step.config.kinds[layer]; }

const DeviceAngles& angles_of(const DeviceStep& step, int32_t layer) {
  return kind_of(step, layer) == LayerKind::kWindow ? step.act.plain_angles
                                                    : step.act.compressed_angles;
}

// Rotates `heads` vectors of `dim` values a row by the row's position.
void rotate(const DeviceStep& step, const DeviceAngles& angles, float* x, int32_t heads,
            int32_t dim, bool inverse = false) {
  step.kernels.rope({.x = x,
                     .n = step.batch.n,
                     .heads = heads,
                     .dim = dim,
                     .rope_dim = step.config.rope_dim,
                     .cosines = angles.cosines,
                     .sines = angles.sines,
                     .inverse = inverse},
                    step.stream);
}

void norm(const DeviceStep& step, const float* gain, int64_t n, int64_t width, float* x) {
  step.kernels.rms_norm(
      {.x = x, .gain = gain, .eps = step.config.rms_eps, .n = n, .k = width, .y = x}, step.stream);
}

void project_compressor(const DeviceStep& step, const DeviceCompressor& weights, float* inputs) {
  const int64_t lanes = weights.value.rows, n = step.batch.n;
  multiply(step, weights.value, step.act.x, n, inputs, 2 * lanes);
  multiply(step, weights.gate, step.act.x, n, inputs + lanes, 2 * lanes);
}

// Everything that reads the sub-layer's input: query and KV down-projections, compressors, index
// weights.
void project_input(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  DeviceScratch& act = step.act;
  const int64_t n = step.batch.n;
  multiply(step, weights.q_a, act.x, n, act.q_low.fresh().values, step.config.q_rank);
  multiply(step, weights.kv, act.x, n, act.kv, step.config.head_dim);
  if (kind_of(step, layer) == LayerKind::kWindow) return;
  project_compressor(step, weights.compressor, act.entry_inputs);
  if (kind_of(step, layer) != LayerKind::kCsa) return;
  project_compressor(step, weights.indexer.keys, act.index_inputs);
  multiply(step, weights.indexer.head_mix, act.x, n, act.index_weights, step.config.index_heads);
}

// kv rows, normed and rotated, into each sequence's ring.
void store_window_rows(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  const int32_t head_dim = step.config.head_dim;
  norm(step, weights.kv_norm, step.batch.n, head_dim, step.act.kv);
  rotate(step, angles_of(step, layer), step.act.kv, 1, head_dim);
  step.kernels.store_window({.kv = step.act.kv,
                             .rows = step.batch.rows,
                             .caches = step.caches(layer),
                             .kv_type = step.batch.kv_type,
                             .n = step.batch.n,
                             .head_dim = head_dim},
                            step.stream);
}

// q = RoPE(rms(Wq_b RMSNorm(Wq_a x))) per head; in CSA layers the index heads from the same
// low-rank query.
void project_queries(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  const ModelConfig& config = step.config;
  DeviceScratch& act = step.act;
  const int64_t n = step.batch.n;
  norm(step, weights.q_a_norm, n, config.q_rank, act.q_low.values);
  multiply(step, weights.q_b, act.q_low, n, act.q, int64_t{config.heads} * config.head_dim);
  norm(step, nullptr, n * config.heads, config.head_dim, act.q);
  rotate(step, angles_of(step, layer), act.q, config.heads, config.head_dim);
  if (kind_of(step, layer) != LayerKind::kCsa) return;
  multiply(step, weights.indexer.query, act.q_low, n, act.index_q,
           int64_t{config.index_heads} * config.index_dim);
  rotate(step, angles_of(step, layer), act.index_q, config.index_heads, config.index_dim);
}

// Projected rows in `inputs` [n, 2, lanes] to new entries of the layer's caches.
void append_entries(const DeviceStep& step, int32_t layer, const DeviceCompressor& weights,
                    const float* inputs, bool of_index) {
  const bool is_csa = kind_of(step, layer) == LayerKind::kCsa;
  const DeviceAngles& angles = is_csa ? step.act.csa_angles : step.act.hca_angles;
  step.kernels.append_entries({.inputs = inputs,
                               .rows = step.batch.rows,
                               .caches = step.caches(layer),
                               .kv_type = step.batch.kv_type,
                               .of_index = of_index,
                               .n = step.batch.n,
                               .run_max = step.batch.run_max,
                               .ratio = static_cast<int32_t>(kind_of(step, layer)),
                               .width = of_index ? step.config.index_dim : step.config.head_dim,
                               .overlapping = is_csa,
                               .ape = weights.ape,
                               .gain = weights.norm,
                               .eps = step.config.rms_eps,
                               .rope_dim = step.config.rope_dim,
                               .cosines = angles.cosines,
                               .sines = angles.sines},
                              step.stream);
}

void attend(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  const ModelConfig& config = step.config;
  const bool is_selected = kind_of(step, layer) == LayerKind::kCsa;
  step.kernels.attention({.q = step.act.q,
                          .rows = step.batch.rows,
                          .caches = step.caches(layer),
                          .kv_type = step.batch.kv_type,
                          .n = step.batch.n,
                          .heads = config.heads,
                          .dim = config.head_dim,
                          .window = config.window,
                          .ratio = static_cast<int32_t>(kind_of(step, layer)),
                          .selected = is_selected ? step.act.selected : nullptr,
                          .selected_count = is_selected ? step.act.selected_count : nullptr,
                          .top_k = config.index_top_k,
                          .sinks = weights.sinks,
                          .scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
                          .prefill = step.batch.prefill,
                          .scratch = step.batch.prefill ? nullptr : step.act.attention,
                          .out = step.act.attention_out.fresh().values},
                         step.stream);
}

// out = Wo_b concat_g (Wo_a[g] o_group_g).
void project_output(const DeviceStep& step, const DeviceAttention& weights) {
  const ModelConfig& config = step.config;
  DeviceScratch& act = step.act;
  const int64_t n = step.batch.n;
  const int32_t groups = config.output_groups;
  const int64_t grouped_width = int64_t{groups} * config.output_rank;
  float* grouped = act.grouped_out.fresh().values;
  for (int32_t g = 0; g < groups; ++g) {
    multiply(step,
             {.w = expert_slice(weights.output_a, groups, g),
              .x_rows = act.group_rows + g * act.chunk,
              .n = n,
              .y = grouped + g * config.output_rank,
              .y_stride = grouped_width},
             act.attention_out, n * groups);
  }
  multiply(step, weights.output_b, act.grouped_out, n, act.output, config.dim);
}

}  // namespace

void attention(const DeviceStep& step, int32_t layer) {
  const DeviceAttention& weights = step.weights.layers[layer].attention;
  project_input(step, layer, weights);
  store_window_rows(step, layer, weights);
  project_queries(step, layer, weights);
  if (kind_of(step, layer) != LayerKind::kWindow) {
    append_entries(step, layer, weights.compressor, step.act.entry_inputs, false);
  }
  if (kind_of(step, layer) == LayerKind::kCsa) {
    append_entries(step, layer, weights.indexer.keys, step.act.index_inputs, true);
    select_entries(step, layer);
  }
  attend(step, layer, weights);
  // Outputs lose their rotation: rows carry their own position's, the query's is taken out here.
  rotate(step, angles_of(step, layer), step.act.attention_out.values, step.config.heads,
         step.config.head_dim, true);
  project_output(step, weights);
}

}  // namespace hearth
