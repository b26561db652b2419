// Scratch memory of a device's forward pass, for the largest chunk and the longest context. Shapes
// hold for a batch of n rows.
#pragma once

#include <cstdint>

#include "base/limits.h"
#include "device/device.h"
#include "model/config.h"
#include "model/device/slab.h"

namespace hearth {

// Activation rows as float32, and in the two forms that products may read instead, once one asks.
struct DeviceRows {
  float* values;  // [n, width]
  GpuRoundedRows rounded;
  uint16_t* bfloat16s;  // [n, width], or null where it is not worth its memory
  int64_t width;
  bool is_rounded;    // whether `rounded` holds the present values
  bool is_converted;  // the same of `bfloat16s`

  // The rows, about to be written anew.
  DeviceRows& fresh() {
    is_rounded = is_converted = false;
    return *this;
  }
};

// Rows of n tokens' normed inputs, and behind them their picks and weights, so that one copy takes
// all: [n, dim], [n, used], [n, used + 1].
struct RoutedRows {
  int64_t dim;
  int32_t used;

  int64_t floats(int64_t n) const { return n * (dim + 2 * used + 1); }
  int32_t* picks(float* x, int64_t n) const { return reinterpret_cast<int32_t*>(x + n * dim); }
  float* weights(float* x, int64_t n) const { return x + n * (dim + used); }
};

struct DeviceAngles {
  float* cosines;  // [n, rope_dim / 2]
  float* sines;
};

struct DeviceScratch {
  int64_t chunk;  // rows of a batch, at most

  DeviceRows streams;   // [n, streams * dim]: the state between blocks
  float* mixes;         // [n, (2 + streams) streams]
  float* mix_parts;     // [n, parts of their columns, mixes + 1], in memory of `q`
  float* coefficients;  // [n, streams (streams + 1)]
  DeviceRows x;         // [n, dim]: the normed input of a sub-layer; behind it picks and weights
  float* output;        // [n, dim]: the sub-layer's output

  DeviceAngles plain_angles, compressed_angles;  // of the rows' positions
  DeviceAngles csa_angles, hca_angles;           // of the entries that they are part of
  DeviceRows q_low;                              // [n, q_rank]
  float* q;                                      // [n, heads, head_dim]
  float* kv;                                     // [n, head_dim]
  float* entry_inputs;       // [n, 2, lanes] of the layer's compressor: values, then gates
  float* index_inputs;       // [n, 2, lanes] of the indexer's compressor
  float* index_q;            // [n, index_heads, index_dim]
  float* index_weights;      // [n, index_heads]
  int64_t entries_max;       // CSA entries a context holds
  int64_t index_group;       // rows whose index scores are held at once
  float* index_scores;       // [group, entries_max]
  int32_t* selected;         // [n, index_top_k]
  int32_t* selected_count;   // [n]
  float* attention;          // what the kernel asks for
  DeviceRows attention_out;  // [n * groups, heads * head_dim / groups]: row i * groups + g
  int32_t* group_rows;       // [groups, chunk]: those rows, group after group
  DeviceRows grouped_out;    // [n, groups * output_rank]

  float* router_logits;  // [n, experts]
  int32_t* picks;        // [n, experts_used], as RoutedRows has them for the n of this batch
  float* pick_weights;   // [n, experts_used + 1], likewise
  GpuPickTiles tiles;
  DeviceRows expert_hidden;  // [n * experts_used, expert_dim]
  DeviceRows shared_hidden;  // [n, shared_dim]
  float* expert_out;         // [n, experts_used + 1, dim]: the last one is the shared expert's
  float* elsewhere;          // [n, dim]: weighted sums of experts that the host computed

  DeviceRows head_x;   // [logit rows, dim]
  float* logits;       // [logit rows, vocab]
  float* row_summary;  // of a row of them, for a sampler
};

// What the sizes follow from, beside the model.
struct DeviceSizes {
  int64_t context;
  const Limits& limits;
  bool rounds_streams;  // as of model/device/weights.h

  int64_t logit_rows() const;
};

DeviceScratch take_scratch(Slab& slab, const ModelConfig& config, const GpuKernels& kernels,
                           const DeviceSizes& sizes);

}  // namespace hearth
