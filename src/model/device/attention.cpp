// Multi-query attention, step by step as in model/attention.cpp.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "model/device/step.h"

namespace hearth {
namespace {

// So few rows of a prompt would not fill a GPU with a block for each: their lists go in parts too.
constexpr int64_t kRowsInParts = 8;

LayerKind kind_of(const DeviceStep& step, int32_t layer) { return step.config.kinds[layer]; }

const DeviceAngles& angles_of(const DeviceStep& step, int32_t layer) {
  return kind_of(step, layer) == LayerKind::kWindow ? step.act.plain_angles
                                                    : step.act.compressed_angles;
}

// Rotates the index heads by their rows' positions.
void rotate(const DeviceStep& step, const DeviceAngles& angles, float* x) {
  step.kernels.rope({.x = x,
                     .n = step.batch.n,
                     .heads = step.config.index_heads,
                     .dim = step.config.index_dim,
                     .rope_dim = step.config.rope_dim,
                     .cosines = angles.cosines,
                     .sines = angles.sines,
                     .inverse = false},
                    step.stream);
}

// Norms vectors of head_dim values, `heads` a row, and rotates them by the row's position.
GpuNormHeadsParams norm_heads(const DeviceStep& step, int32_t layer, float* x, const float* gain,
                              int32_t heads) {
  const DeviceAngles& angles = angles_of(step, layer);
  return {.x = x,
          .gain = gain,
          .eps = step.config.rms_eps,
          .n = step.batch.n,
          .heads = heads,
          .dim = step.config.head_dim,
          .rope_dim = step.config.rope_dim,
          .cosines = angles.cosines,
          .sines = angles.sines,
          .rows = step.batch.rows,
          .caches = nullptr,
          .kv_type = step.batch.kv_type};
}

// A matrix times all rows, into rows of its own.
DeviceProduct product(const DeviceStep& step, const Matrix& w, float* y) {
  return {.w = w, .n = step.batch.n, .y = y, .y_stride = w.rows};
}

void add_compressor(const DeviceStep& step, const DeviceCompressor& weights, float* inputs,
                    std::vector<DeviceProduct>& products) {
  const int64_t lanes = weights.value.rows, n = step.batch.n;
  products.push_back({.w = weights.value, .n = n, .y = inputs, .y_stride = 2 * lanes});
  products.push_back({.w = weights.gate, .n = n, .y = inputs + lanes, .y_stride = 2 * lanes});
}

// Everything that reads the sub-layer's input: query and KV down-projections, compressors, index
// weights.
void project_input(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  DeviceScratch& act = step.act;
  step.meter.mark(Stage::kAttentionProjections);
  const std::array down = {product(step, weights.q_a, act.q_low.fresh().values),
                           product(step, weights.kv, act.kv)};
  multiply_all(step, down, act.x, step.batch.n);
  if (kind_of(step, layer) == LayerKind::kWindow) return;
  step.meter.mark(Stage::kCompressor);
  std::vector<DeviceProduct> products;
  add_compressor(step, weights.compressor, act.entry_inputs, products);
  if (kind_of(step, layer) == LayerKind::kCsa) {
    add_compressor(step, weights.indexer.keys, act.index_inputs, products);
    products.push_back(product(step, weights.indexer.head_mix, act.index_weights));
  }
  multiply_all(step, products, act.x, step.batch.n);
}

// kv rows, normed and rotated, into each sequence's ring.
void store_window_rows(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  step.meter.mark(Stage::kAttentionProjections);
  GpuNormHeadsParams params = norm_heads(step, layer, step.act.kv, weights.kv_norm, 1);
  params.caches = step.caches(layer);
  step.kernels.norm_heads(params, step.stream);
}

// q = RoPE(rms(Wq_b RMSNorm(Wq_a x))) per head; in CSA layers the index heads from the same
// low-rank query.
void project_queries(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  const ModelConfig& config = step.config;
  DeviceScratch& act = step.act;
  const bool is_csa = kind_of(step, layer) == LayerKind::kCsa;
  step.meter.mark(Stage::kAttentionProjections);
  step.kernels.rms_norm({.x = act.q_low.values,
                         .gain = weights.q_a_norm,
                         .eps = config.rms_eps,
                         .n = step.batch.n,
                         .k = config.q_rank,
                         .y = act.q_low.values,
                         .yq = step.batch.prefill ? GpuRoundedRows{} : act.q_low.rounded},
                        step.stream);
  act.q_low.is_rounded = !step.batch.prefill && act.q_low.rounded.codes != nullptr;
  std::vector<DeviceProduct> products = {product(step, weights.q_b, act.q)};
  if (is_csa) products.push_back(product(step, weights.indexer.query, act.index_q));
  multiply_all(step, products, act.q_low, step.batch.n);
  step.kernels.norm_heads(norm_heads(step, layer, act.q, nullptr, config.heads), step.stream);
  if (is_csa) rotate(step, angles_of(step, layer), act.index_q);
}

// Projected rows in `inputs` [n, 2, lanes] to new entries of the layer's caches.
void append_entries(const DeviceStep& step, int32_t layer, const DeviceCompressor& weights,
                    const float* inputs, bool of_index) {
  const bool is_csa = kind_of(step, layer) == LayerKind::kCsa;
  step.meter.mark(of_index ? Stage::kIndexer : Stage::kCompressor);
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

// Outputs lose their rotation: rows carry their own position's, the query's is taken out.
void attend(const DeviceStep& step, int32_t layer, const DeviceAttention& weights) {
  const ModelConfig& config = step.config;
  const bool is_selected = kind_of(step, layer) == LayerKind::kCsa;
  const DeviceAngles& angles = angles_of(step, layer);
  step.meter.mark(Stage::kAttention);
  DeviceRows& out = step.act.attention_out.fresh();
  const bool is_prefill = step.batch.prefill && step.batch.n > kRowsInParts;
  out.is_rounded = !is_prefill && out.rounded.codes != nullptr && config.head_dim % 32 == 0;
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
                          .prefill = is_prefill,
                          .scratch = is_prefill ? nullptr : step.act.attention,
                          .out = out.values,
                          .cosines = angles.cosines,
                          .sines = angles.sines,
                          .rope_dim = config.rope_dim,
                          .out_q = out.is_rounded ? out.rounded : GpuRoundedRows{}},
                         step.stream);
}

// out = Wo_b concat_g (Wo_a[g] o_group_g).
void project_output(const DeviceStep& step, const DeviceAttention& weights) {
  const ModelConfig& config = step.config;
  DeviceScratch& act = step.act;
  step.meter.mark(Stage::kAttentionProjections);
  const int64_t n = step.batch.n;
  const int32_t groups = config.output_groups;
  const int64_t grouped_width = int64_t{groups} * config.output_rank;
  float* grouped = act.grouped_out.fresh().values;
  std::vector<DeviceProduct> products;
  for (int32_t g = 0; g < groups; ++g) {
    products.push_back({.w = expert_slice(weights.output_a, groups, g),
                        .x_rows = act.group_rows + g * act.chunk,
                        .n = n,
                        .y = grouped + g * config.output_rank,
                        .y_stride = grouped_width});
  }
  multiply_all(step, products, act.attention_out, n * groups);
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
  project_output(step, weights);
}

}  // namespace hearth
