// The CPU kernels: one table of functions per instruction set. Every function runs on the calling
// thread over the range it is given; the caller splits work among threads. Rows are contiguous
// unless a stride is named.
//
// This header is included by files compiled with -m flags, so it holds plain data only: an inline
// function compiled there could be the copy the linker keeps for machines without those
// instructions.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

constexpr int kQuantBlock = 32;  // activations that share one scale
constexpr int kQuantHalf = 16;   // activations that share one sum
constexpr int kIndexHeadLanes = 16;

// Activation rows rounded to 8 bits, value = scale * code, scale = largest magnitude of the block /
// 127; and, for tables with `reads_bfloat16`, to bfloat16 as well.
struct RoundedRows {
  int8_t* codes;  // [n, k]
  float* scales;  // [n, k / 32]
  float* sums;    // [n, k / 16]: scale * sum of the codes of each half block

  uint16_t* bfloat16s;      // [n, bfloat16_stride], k of each row used, of each 32 columns the even
                            // ones first; null where the table does not read them
  int64_t bfloat16_stride;  // values; k and some more, so that sixteen rows do not fall into the
                            // same sets of a cache
};

// y[y_rows[i], r] = w[r] . x[x_rows[i]] for row_begin <= r < row_end. Block formats read `xq`,
// floats (F32, F16, BF16, F8_E4M3) read `x`, unless reads_rounded says otherwise. The result of one
// (i, r) does not depend on the range or on the other rows, nor, unless `prefill` is set, on n. Of
// interleaved matrices whole groups of rows are asked for.
struct MatmulParams {
  Matrix w;               // [rows, k]
  const float* x;         // [.., k]
  RoundedRows xq;         // the same rows, rounded
  const int32_t* x_rows;  // [n] rows of x to read, or null for 0 .. n-1
  int64_t n;
  float* y;               // [.., y_stride]
  const int32_t* y_rows;  // [n] rows of y to write, or null for 0 .. n-1
  int64_t y_stride;
  int64_t row_begin;
  int64_t row_end;
  const unsigned char* next = nullptr;  // weights the caller reads afterwards, where it knows
  bool prefill = false;  // whether a table may use arithmetic that suits many tokens only
};

// Rotates the trailing `rope_dim` values of each of `heads` vectors of `dim` values, pairs (2i, 2i
// + 1).
struct RopeParams {
  float* x;  // [heads, dim]
  int32_t heads;
  int32_t dim;
  int32_t rope_dim;
  const float* cosines;  // [rope_dim / 2]
  const float* sines;    // [rope_dim / 2]; negate them for the inverse
};

// One query position: out[h] = softmax([q[h] . row_i * scale, sink[h]]) without the sink . rows,
// for heads head_begin <= h < head_end.
struct AttentionParams {
  const float* q;           // [heads, dim]
  const void* const* rows;  // [n_rows] pointers to K = V rows of `dim` values of `kv_type`
  KvType kv_type;
  int32_t n_rows;
  int32_t dim;
  int32_t head_begin;
  int32_t head_end;
  const float* sinks;  // [heads]
  float scale;
  float* scores;         // scratch [head_end - head_begin, n_rows]
  float* out;            // [heads, dim]
  bool prefill = false;  // as in MatmulParams
};

// scores[e] = sum_h head_weights[h] * relu(q[.][h] . keys[e]) for key_begin <= e < key_end. Heads
// are the vector lanes: `heads` is a multiple of 16, heads added to reach it have zero weight.
struct IndexScoreParams {
  const float* q;             // [dim, heads]: transposed
  const float* head_weights;  // [heads]
  const void* keys;           // [.., dim] of `kv_type`
  KvType kv_type;
  int32_t heads;
  int32_t dim;
  int64_t key_begin;
  int64_t key_end;
  float* scores;         // [.. key_end]
  bool prefill = false;  // as in MatmulParams
};

// Per channel c: out[c] = sum_j softmax_j(gates[j][c] + biases[j][c]) * values[j][c].
struct CompressParams {
  const float* const* values;  // [n] rows of `width`
  const float* const* gates;   // [n] rows of `width`
  const float* const* biases;  // [n] rows of `width`
  int32_t n;
  int32_t width;
  float* out;  // [width]
};

struct Kernels {
  const char* name;
  bool reads_bfloat16;     // whether quantize writes and matmul reads RoundedRows::bfloat16s
  bool reads_interleaved;  // whether matmul takes interleaved matrices, and is faster with them

  // k must be a multiple of 32.
  void (*quantize)(const float* x, int64_t n, int64_t k, RoundedRows out);
  void (*matmul)(const MatmulParams& params);
  // y = gain * x / sqrt(mean(x^2) + eps) for each of n rows of k values; a null gain counts as
  // ones. y may be x.
  void (*rms_norm)(const float* x, const float* gain, float eps, int64_t n, int64_t k, float* y);
  void (*rope)(const RopeParams& params);
  void (*store_kv)(const float* x, int64_t n, KvType type, void* out);
  void (*attention)(const AttentionParams& params);
  void (*index_scores)(const IndexScoreParams& params);
  void (*compress)(const CompressParams& params);
  // out = silu(min(gate, clamp)) * clamp(up, -clamp, clamp)
  void (*swiglu)(const float* gate, const float* up, float clamp, int64_t n, float* out);
  // out = sum_i weights[i] * rows[i * stride], i in order
  void (*weighted_sum)(const float* rows, int64_t stride, const float* weights, int32_t n_rows,
                       int64_t width, float* out);
  // out[i] = exp((x[i] - largest) * scale), the terms of a softmax; returns their sum. `largest` is
  // at least that of x, scale > 0. All tables but the reference give the bits of base/softmax.h.
  float (*softmax_terms)(const float* x, float largest, float scale, int64_t n, float* out);
  // A bandwidth probe: reads every byte, returns a value that depends on all of them.
  uint64_t (*read_bytes)(const void* data, int64_t bytes);
  // A probe of the multiply units: works in registers only, with the instructions that matmul is
  // fastest with. Returns the multiply-adds it did, each counted as two.
  int64_t (*multiply_registers)(int64_t rounds);
};

// Whether matmul reads the rounded activations for weights of this type, whatever the table.
bool reads_quantized(TensorType type);
// The same of a table: in a prefill, one with `reads_bfloat16` reads them for F16 and BF16 as well.
bool reads_rounded(const Kernels& kernels, const Matrix& w, bool prefill);

}  // namespace hearth
