// What the steps of a layer share: the batch at hand and the scratch memory between them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/limits.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/linear.h"
#include "model/rope_table.h"
#include "model/routed_experts.h"
#include "model/weights.h"
#include "offload/store/expert_store.h"

namespace hearth {

struct BatchRow {
  int32_t token;
  int64_t position;
  KvCache* cache;
};

// The rows of all segments, one after the other.
struct Batch {
  std::vector<BatchRow> rows;
  std::vector<Segment> segments;
  std::vector<int32_t> first_rows;  // of each segment

  int32_t n() const { return static_cast<int32_t>(rows.size()); }
};

// Cosines and sines of every batch row, for layers with and without compression.
struct RopeAngles {
  Buffer cosines;  // [n, rope_dim / 2]
  Buffer sines;
  Buffer minus_sines;
};

// Scratch memory, sized for the largest chunk and the longest context. Shapes hold for a batch of n
// rows.
struct Activations {
  Activations(const ModelConfig& config, const Kernels& kernels, int64_t context, int threads,
              const Limits& limits);
  std::vector<const Buffer*> buffers() const;  // all memory they take
  int64_t bytes() const { return total_bytes(buffers()); }

  float* streams_row(int32_t row) const { return streams.as<float>() + row * streams_stride; }
  // The place of the sub-layer's output, behind the row's streams.
  float* output_row(int32_t row) const { return streams_row(row) + streams_stride - dim; }

  int64_t dim;
  int64_t streams_stride;  // (streams + 1) * dim
  Buffer streams;  // [n, streams + 1, dim]: the state between blocks, then the sub-layer's output
  Buffer next_streams;              // the same, written while `streams` is read
  ActivationBuffer streams_normed;  // [n, streams * dim]
  Buffer mixes;                     // [n, (2 + streams) streams]
  int64_t coefficients_stride;      // streams + streams (streams + 1)
  Buffer coefficients;  // [n, ..]: pre [streams], then per new stream its weights of the old ones
                        // and of the output

  ActivationBuffer x;  // [n, dim]: the normed input of a sub-layer

  RopeAngles plain_angles, compressed_angles;
  ActivationBuffer q_low;          // [n, q_rank]
  Buffer q;                        // [n, heads, head_dim]
  Buffer kv;                       // [n, head_dim]
  Buffer entry_inputs;             // [n, 2, lanes] of the layer's compressor: values, then gates
  Buffer index_inputs;             // [n, 2, lanes] of the indexer's compressor
  Buffer index_q;                  // [n, index_heads, index_dim]
  Buffer index_weights;            // [n, index_heads]
  int32_t index_lanes;             // index_heads rounded up to whole vectors
  Buffer index_q_transposed;       // [group, index_dim, index_lanes]
  Buffer index_weights_padded;     // [group, index_lanes]
  int64_t entries_max;             // CSA entries a context holds
  Buffer index_scores;             // [group, entries_max]
  Buffer index_order;              // [threads, entries_max] int32
  Buffer selected;                 // [n, index_top_k] int32 entries, ascending
  Buffer selected_count;           // [n] int32
  int64_t attended_max;            // rows a query can see
  Buffer attended_rows;            // [threads, attended_max] pointers
  Buffer attention_scores;         // [threads, heads, attended_max]
  Buffer thread_row;               // [threads, max(head_dim, index_dim)]
  ActivationBuffer attention_out;  // [n * groups, heads * head_dim / groups]: row i * groups + g
  Buffer group_rows;               // [groups, n] int32: the rows of each group in attention_out
  ActivationBuffer grouped_out;    // [n, groups * output_rank]

  Buffer router_scores;  // [n, experts]
  Buffer guess_scores;   // [experts]
  Buffer picks;          // [n, experts_used] int32
  Buffer pick_weights;   // [n, experts_used + 1]: the last one is the shared expert's
  ExpertScratch experts;
  Buffer shared_gate;  // [n, shared_dim]
  Buffer shared_up;
  ActivationBuffer shared_hidden;  // [n, shared_dim]
  std::vector<Product> products;   // one loop's, of all groups

  ActivationBuffer head_x;  // [logit rows, dim]
  Buffer logits;            // [logit rows, vocab]
};

struct Step {
  const ModelConfig& config;
  const Limits& limits;
  const RopeTable& rope_compressed;
  Compute& compute;
  Activations& act;
  const Batch& batch;
};

// Coefficients and input of a sub-layer: act.x = RMSNorm(sum_n pre[n] h[n]).
void enter_hyper_connection(Step& step, const HyperWeights& weights, const Vector& norm);
// h'[k] = post[k] y + sum_j C[j, k] h[j], y being the sub-layer's output.
void leave_hyper_connection(Step& step);
// The head's: head_x of row `out_row` = RMSNorm(sum_n pre[n] h[n]) for the rows listed.
void mix_head_streams(Step& step, const HyperWeights& weights, const Vector& norm,
                      std::span<const int32_t> rows);

void attention(Step& step, int32_t layer, const AttentionWeights& weights);
// Projected rows in `inputs` [n, 2, lanes] to new entries of the caches `pick(layer cache)` names.
void append_entries(Step& step, int32_t layer, const CompressorWeights& weights,
                    const float* inputs, CompressedCache LayerCache::*which);
// Fills act.selected from act.index_q and act.index_weights.
void select_entries(Step& step, int32_t layer);

void route(Step& step, int32_t layer, const MoeWeights& weights);
// What `next`, the router of a later layer, would pick for the first row of act.x, best first.
void guess_picks(Step& step, const MoeWeights& next, int32_t count, std::vector<int32_t>& picks);
// The store has begun the layer.
void experts(Step& step, int32_t layer, const MoeWeights& weights, ExpertStore& store);

}  // namespace hearth
