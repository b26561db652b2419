// Sizes of the scratch memory of a forward pass.
#include <algorithm>

#include "model/step.h"

namespace hearth {
namespace {

Buffer floats(int64_t count) { return Buffer(static_cast<size_t>(count) * sizeof(float)); }
Buffer ints(int64_t count) { return Buffer(static_cast<size_t>(count) * sizeof(int32_t)); }

RopeAngles make_angles(int64_t n, int32_t rope_dim) {
  const int64_t count = n * (rope_dim / 2);
  return {floats(count), floats(count), floats(count)};
}

// Rows a query attends to at most, over all kinds of layers the model has.
int64_t attended_rows_max(const ModelConfig& config, int64_t context) {
  int64_t compressed = 0;
  for (const LayerKind kind : config.kinds) {
    if (kind == LayerKind::kHca) compressed = std::max(compressed, context / 128);
    if (kind == LayerKind::kCsa) compressed = std::max<int64_t>(compressed, config.index_top_k);
  }
  return config.window + compressed;
}

}  // namespace

Activations::Activations(const ModelConfig& config, const Kernels& kernels, int64_t context,
                         int threads, const Limits& limits)
    : experts(config, kernels, limits.chunk_tokens) {
  const int64_t n = limits.chunk_tokens;
  const int64_t group = limits.index_group_tokens;
  const int64_t used = config.experts_used;
  const int64_t heads_width = static_cast<int64_t>(config.heads) * config.head_dim;
  dim = config.dim;
  streams_stride = (config.streams + 1) * dim;
  streams = floats(n * streams_stride);
  next_streams = floats(n * streams_stride);
  streams_normed = ActivationBuffer(kernels, n, config.streams * dim);
  mixes = floats(n * config.mixes());
  coefficients_stride = config.streams + config.streams * (config.streams + 1);
  coefficients = floats(n * coefficients_stride);
  x = ActivationBuffer(kernels, n, dim);

  plain_angles = make_angles(n, config.rope_dim);
  compressed_angles = make_angles(n, config.rope_dim);
  q_low = ActivationBuffer(kernels, n, config.q_rank);
  q = floats(n * heads_width);
  kv = floats(n * config.head_dim);
  entry_inputs = floats(n * 2 * 2 * config.head_dim);
  index_inputs = floats(n * 2 * 2 * config.index_dim);
  index_q = floats(n * config.index_heads * config.index_dim);
  index_weights = floats(n * config.index_heads);
  index_lanes = (config.index_heads + kIndexHeadLanes - 1) / kIndexHeadLanes * kIndexHeadLanes;
  index_q_transposed = floats(group * config.index_dim * index_lanes);
  index_weights_padded = floats(group * index_lanes);
  entries_max = config.index_heads > 0 ? context / static_cast<int64_t>(LayerKind::kCsa) : 0;
  index_scores = floats(group * entries_max);
  index_order = ints(threads * entries_max);
  selected = ints(n * config.index_top_k);
  selected_count = ints(n);
  attended_max = attended_rows_max(config, context);
  attended_rows = Buffer(static_cast<size_t>(threads * attended_max) * sizeof(void*));
  attention_scores = floats(threads * config.heads * attended_max);
  thread_row = floats(static_cast<int64_t>(threads) * std::max(config.head_dim, config.index_dim));
  attention_out =
      ActivationBuffer(kernels, n * config.output_groups, heads_width / config.output_groups);
  group_rows = ints(n * config.output_groups);
  grouped_out =
      ActivationBuffer(kernels, n, static_cast<int64_t>(config.output_groups) * config.output_rank);

  router_scores = floats(n * config.experts);
  guess_scores = floats(config.experts);
  picks = ints(n * used);
  pick_weights = floats(n * (used + 1));
  shared_gate = floats(n * config.shared_dim);
  shared_up = floats(n * config.shared_dim);
  shared_hidden = ActivationBuffer(kernels, n, config.shared_dim);
  products.reserve(std::max(2, config.output_groups));

  const int64_t logit_rows = std::min(limits.chunk_tokens, limits.logit_rows);
  head_x = ActivationBuffer(kernels, logit_rows, dim);
  logits = floats(logit_rows * config.vocab);
}

std::vector<const Buffer*> Activations::buffers() const {
  std::vector<const Buffer*> all = experts.buffers();
  all.insert(all.end(), {&streams,
                         &next_streams,
                         &mixes,
                         &coefficients,
                         &plain_angles.cosines,
                         &plain_angles.sines,
                         &plain_angles.minus_sines,
                         &compressed_angles.cosines,
                         &compressed_angles.sines,
                         &compressed_angles.minus_sines,
                         &q,
                         &kv,
                         &entry_inputs,
                         &index_inputs,
                         &index_q,
                         &index_weights,
                         &index_q_transposed,
                         &index_weights_padded,
                         &index_scores,
                         &index_order,
                         &selected,
                         &selected_count,
                         &attended_rows,
                         &attention_scores,
                         &thread_row,
                         &group_rows,
                         &router_scores,
                         &guess_scores,
                         &picks,
                         &pick_weights,
                         &shared_gate,
                         &shared_up,
                         &logits});
  for (const ActivationBuffer* rows :
       {&streams_normed, &x, &q_low, &attention_out, &grouped_out, &shared_hidden, &head_x}) {
    all.push_back(&rows->memory());
  }
  return all;
}

}  // namespace hearth
