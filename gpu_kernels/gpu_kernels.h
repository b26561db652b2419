// The GPU kernels: one table of functions, filled by CUDA and by the same sources on emulated
// threads. Every pointer is the device's, every function only enqueues on its stream. Rows are
// contiguous unless a stride is named.
//
// Plain data only, as kernels' sources include it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/tensor_type.h"

namespace hearth {

// What Stream::handle() of src/device gives. Null is CUDA's default stream; on emulated threads, at
// once.
using GpuStream = void*;

// Activation rows rounded to 8 bits, value = scale * code, scale = largest magnitude of 32 / 127.
// The same numbers as on the CPU.
struct GpuRoundedRows {
  int8_t* codes;  // [n, k]
  float* scales;  // [n, k / 32]
  float* sums;    // [n, k / 16]: scale * sum of the codes of each half block
};

struct GpuQuantizeParams {
  const float* x;  // [n, k], k a multiple of 32
  int64_t n;
  int64_t k;
  GpuRoundedRows out;
};

// y[y_rows[i], r] = w[r] . x[x_rows[i]]. Formats that read rounded activations on the CPU
// (reads_quantized) read `xq`, the others `x`. One result does not depend on n nor on the other
// rows. With `prefill` set, more than 8 tokens may be multiplied in bfloat16: reads_bfloat16s says
// whether, and then neither `x` nor `xq` is read.
struct GpuMatmulParams {
  Matrix w;               // [rows, k], as stored; of any alignment
  const float* x;         // [.., k]
  GpuRoundedRows xq;      // the same rows, rounded
  const int32_t* x_rows;  // [n] rows of x to read, or null for 0 .. n-1
  int64_t n;
  float* y;               // [.., y_stride]
  const int32_t* y_rows;  // [n] rows of y to write, or null for 0 .. n-1
  int64_t y_stride;
  const uint16_t* bfloat16s = nullptr;  // [.., k] the rows of x as bfloat16, aligned to 16 bytes
  bool prefill = false;                 // whether a result may depend on n
};

// Products that one call of `matmuls` takes: of one type and one width, which read the same `x` and
// `xq` for the same number of tokens. With few tokens they share a launch.
constexpr int32_t kGpuMatmulsMax = 16;

// out[i] = x[i] rounded to bfloat16.
struct GpuToBfloat16Params {
  const float* x;  // [count], aligned to 16 bytes like out
  int64_t count;
  uint16_t* out;  // [count]
};

// y = gain * x / sqrt(mean(x^2) + eps), row by row; y may be x. Where `yq` is given, all memory is
// aligned to 16 bytes.
struct GpuRmsNormParams {
  const float* x;     // [n, k]
  const float* gain;  // [k], or null for ones
  float eps;
  int64_t n;
  int64_t k;
  float* y;           // [n, k]
  GpuRoundedRows yq;  // the same rows, rounded, k a multiple of 32; or null codes for none
};

// Rotates the trailing `rope_dim` values of each head, pairs (2i, 2i + 1), in place.
struct GpuRopeParams {
  float* x;  // [n, heads, dim]
  int64_t n;
  int32_t heads;
  int32_t dim;
  int32_t rope_dim;
  const float* cosines;  // [n, rope_dim / 2]
  const float* sines;    // [n, rope_dim / 2]
  bool inverse;          // by the negative angle
};

// ---- around the matrices ----

// out[i, s] = row tokens[i] of the table, for every stream s.
struct GpuEmbedParams {
  Matrix table;           // [vocab, dim], of a type that matmul knows; of any alignment
  const int32_t* tokens;  // [n] rows of the table, or null for 0 .. n-1
  int64_t n;
  int32_t streams;
  float* out;  // [n, streams, dim]
};

// Parts of a hyper-connection's mixes, fn . streams, and of the streams' sum of squares: each of
// kGpuMixColumns columns. What one row gets does not depend on the others.
struct GpuProjectStreamsParams {
  Matrix fn;             // [M, width] of float32, width a multiple of 4, aligned to 16 bytes
  const float* streams;  // [.., width]
  const int32_t* rows;   // [n] rows of streams and parts, or null for 0 .. n-1
  int64_t n;
  float* parts;  // [.., width / kGpuMixColumns rounded up, M + 1]: the last one is of the squares
};
constexpr int64_t kGpuMixColumns = 256;

// A hyper-connection's coefficients from its mixes, and the input of the sub-layer behind it:
//   m = mixes / rms(streams), streams being the whole row
//   pre = sigmoid(m[0 .. S-1] scale[0] + base) + hyper_eps
//   x = RMSNorm(sum_s pre[s] streams[s]) with gain
// and, unless `coefficients` is null, as it is for the head, from the rest of m the balanced
// matrix C [S, S] and post [S].
struct GpuEnterHyperParams {
  const float* streams;  // [.., S, dim], dim a multiple of 4
  const float* mixes;    // [.., M] = fn . streams, not normed; M = (2 + S) S, or S for the head
  const float* parts;    // or what project_streams makes of them, if not null
  const int32_t* rows;   // [n] rows of streams and mixes to read, or null for 0 .. n-1
  const float* scale;    // [3], or [1] for the head
  const float* base;     // [M]
  const float* gain;     // [dim]
  int64_t n;
  int32_t stream_count;  // S, at most kGpuStreamsMax
  int64_t dim;
  int32_t sinkhorn_iterations;
  float hyper_eps;
  float rms_eps;
  float* coefficients;  // [n, S (S + 1)]: for each new stream k C[0 .. S-1, k], post[k]; or null
  float* x;             // [n, dim]
  GpuRoundedRows xq;    // the same rows, rounded, dim a multiple of 32; or null codes for none
};
constexpr int32_t kGpuStreamsMax = 16;

// next[k] = sum_j C[j, k] streams[j] + post[k] output, for every new stream k; next may be streams.
struct GpuLeaveHyperParams {
  const float* streams;       // [n, S, dim]
  const float* output;        // [n, dim]: the sub-layer's
  const float* coefficients;  // [n, S (S + 1)], as above
  int64_t n;
  int32_t stream_count;  // S, at most kGpuStreamsMax
  int64_t dim;
  float* next;  // [n, S, dim]
};

// The experts of each row: those with the largest sqrt(softplus(logit)) + bias, best first, the
// lower index at a tie; or the hash table's. Weights are the scores without bias, of sum one where
// `norm` is set, times `scale`. NaN counts as the least score.
struct GpuRouteParams {
  const float* logits;        // [n, experts]
  const float* bias;          // [experts]; not read with a hash table
  const int32_t* hash_table;  // [vocab, used], or null
  const int32_t* tokens;      // [n]; only read with a hash table
  int64_t n;
  int32_t experts;
  int32_t used;
  bool norm;
  float scale;
  int32_t* picks;  // [n, used]
  float* weights;  // [n, used + 1]; the last one is the shared expert's, 1
};

// One of the three matrices of all of a layer's experts, where they lie in the device's memory.
struct GpuExpertMatrices {
  TensorType type;
  int64_t rows;
  int64_t cols;
  const unsigned char* const* data;  // [experts] matrices [rows, cols], of any alignment; null for
                                     // an expert that is computed elsewhere
};

// Picks in tiles: each the picks of one expert, at most so many of them as a tile may have. Experts
// follow one another, and so do the picks of each: the same picks make the same tiles.
struct GpuPickTiles {
  int32_t* count;    // [1]
  int32_t* experts;  // [T], T = the smaller of n * used and experts + n * used / tile_size
  int32_t* begins;   // [T + 1]: the place of a tile's first pick in `order`
  int32_t* order;    // [n, used] picks, i * used + k for the k-th of row i
};
constexpr int32_t kGpuTilePicks = 8;  // of a tile, but where expert_tile_size says more

struct GpuTilePicksParams {
  const int32_t* picks;              // [n, used]
  const unsigned char* const* data;  // [experts]: picks of those with null are in no tile
  int64_t n;
  int32_t used;
  int32_t experts;
  GpuPickTiles tiles;
  int32_t tile_size = kGpuTilePicks;  // picks a tile may have
};

// Who computes what with experts:
//   picks and tiles   rows that share an expert share its weights
//   picks alone       every pick by itself (tiles.count null)
//   neither           expert 0 for all rows, of which `used` is 1: the shared expert
// Picks whose expert has no matrix are left out; their rows of results are not written. One result
// does not depend on the other rows, nor on how they are tiled. Tiles of more than kGpuTilePicks,
// which a prefill may have, are multiplied in bfloat16: rows are read as such and hidden values are
// nothing else.
struct GpuPicks {
  const int32_t* picks;  // [n, used]
  GpuPickTiles tiles;
  int64_t n;
  int32_t used;
  int32_t experts;
  int32_t tile_size = kGpuTilePicks;  // of `tiles`, or of all rows; not of picks alone
};

// hidden = silu(min(gate x, clamp)) * clamp(up x, -clamp, clamp), for the picks of every row.
struct GpuExpertHiddenParams {
  GpuPicks picks;
  GpuExpertMatrices gate;  // [expert_dim, dim]
  GpuExpertMatrices up;    // of the same type
  const float* x;          // [n, dim], as matmul reads it
  GpuRoundedRows xq;
  float clamp;
  float* hidden;                         // [n, used, expert_dim]
  const uint16_t* bfloat16s = nullptr;   // [n, dim] for large tiles, aligned to 16 bytes
  uint16_t* hidden_bfloat16s = nullptr;  // [n, used, expert_dim], the same
};

// out[i, first_term + k] = down hidden[i, k].
struct GpuExpertOutputParams {
  GpuPicks picks;
  GpuExpertMatrices down;  // [dim, expert_dim]
  const float* hidden;     // [n, used, expert_dim], as matmul reads it
  GpuRoundedRows hidden_q;
  int32_t terms;  // rows of `out` for each row: with those of other experts
  int32_t first_term;
  float* out;                                  // [n, terms, dim]
  const uint16_t* hidden_bfloat16s = nullptr;  // for large tiles
};

// out[i] = sum_k weights[i, k] outputs[i, k], k in order, and `elsewhere`. What an expert without a
// matrix has in `outputs` is not read.
struct GpuSumExpertsParams {
  const float* outputs;              // [n, used + 1, dim]: the last one is the shared expert's
  const float* weights;              // [n, used + 1]
  const int32_t* picks;              // [n, used]
  const unsigned char* const* data;  // [experts], as in GpuExpertMatrices
  const float* elsewhere;            // [n, dim]: the weighed sum of the others, or null for none
  int64_t n;
  int32_t used;
  int64_t dim;
  float* out;  // [n, dim]
};

// The likeliest token of each row, the lowest at a tie, as the CPU's sampler finds it: NaN counts
// as the lowest float, infinities as the largest and the lowest.
struct GpuArgmaxParams {
  const float* logits;  // [n, vocab]
  int64_t n;
  int64_t vocab;
  int32_t* tokens;  // [n]
  // What a softmax needs of each row, or null.
  float scale;     // 1 / temperature
  float* largest;  // [n]: the likeliest token's logit
  // [n, vocab / kSoftmaxBlock, rounded up]: the sums of exp((logit - largest) * scale) over blocks
  // of tokens, to the bits of base/softmax.h.
  float* sums;
};

// out += x.
struct GpuAddParams {
  const float* x;  // [count]
  int64_t count;
  float* out;  // [count]
};

// ---- attention ----

// A row of a batch. The rows of a sequence stand together, by position.
struct GpuRow {
  int64_t position;
  int32_t token;
  int32_t sequence;  // which of the caches is its own
};

// The rows of one compressor, as in src/model/kv_cache.h.
struct GpuCompressedCache {
  void* rows;    // [.., width] of a KvType
  float* carry;  // [carry slots, 2, lanes]: value and gate of position p in slot p mod carry slots
};

// One layer of one sequence. All memory is aligned to 16 bytes.
struct GpuSequenceCache {
  void* window;  // [window_slots, head_dim] of a KvType: position p in slot p mod window_slots
  int64_t window_slots;
  GpuCompressedCache entries;  // of head_dim values, in CSA and HCA layers
  GpuCompressedCache index;    // of index_dim values, in CSA layers
};

// Cosines and sines of positions times frequencies, multiplied in double precision as on the CPU.
// A device's cosine of a double may differ in the last bit of the double; the float then differs
// once in many millions.
struct GpuRopeAnglesParams {
  const GpuRow* rows;         // [n]
  const double* frequencies;  // [pairs] radians a position
  int64_t n;
  int32_t pairs;
  int32_t ratio;   // the angles of the row's position rounded down to a multiple of this: 1 for its
                   // own, more for the entry that it is part of
  float* cosines;  // [n, pairs]
  float* sines;    // [n, pairs]
};

// Each head normed as by rms_norm, then rotated as by rope, in place. Where `caches` are given
// there is one head, which goes to its place in the window too; no two rows of a batch may share
// one.
struct GpuNormHeadsParams {
  float* x;           // [n, heads, dim], aligned to 8 bytes
  const float* gain;  // [dim], or null for ones
  float eps;
  int64_t n;
  int32_t heads;
  int32_t dim;  // even, at most kGpuHeadDimMax
  int32_t rope_dim;
  const float* cosines;            // [n, rope_dim / 2]
  const float* sines;              // [n, rope_dim / 2]
  const GpuRow* rows;              // [n], where `caches` are given
  const GpuSequenceCache* caches;  // [sequences], or null
  KvType kv_type;
};

// out[h] = softmax([q[h] . row_i * scale, sink[h]]) without the sink . rows, the rows being the
// window of the batch row's position and, behind it, compressed entries. Unless `prefill` is set,
// a result depends neither on n nor on the other rows; with it, more than 8 rows of a cache of
// bfloat16s may be attended to on tensor cores, queries and softmax rounded to bfloat16 too.
struct GpuAttentionParams {
  const float* q;                  // [n, heads, dim]
  const GpuRow* rows;              // [n]
  const GpuSequenceCache* caches;  // [sequences]
  KvType kv_type;
  int64_t n;
  int32_t heads;
  int32_t dim;  // at most kGpuHeadDimMax
  int32_t window;
  int32_t ratio;                  // tokens an entry covers, 0 where there are none
  const int32_t* selected;        // [n, top_k] entries that a row sees, or null for all there are
  const int32_t* selected_count;  // [n], where `selected` is given
  int32_t top_k;
  const float* sinks;  // [heads]
  float scale;
  bool prefill;    // many tokens: one block goes through all rows of a list, without scratch
  float* scratch;  // attention_scratch_floats(n, heads, dim), aligned to 16 bytes; for one call at
                   // a time; null with `prefill`
  float* out;      // [n, heads, dim]
  // The outputs' trailing values are rotated by the negative angles of their row, unless null.
  const float* cosines;  // [n, rope_dim / 2]
  const float* sines;    // [n, rope_dim / 2]
  int32_t rope_dim;
  GpuRoundedRows out_q;  // the outputs, rounded, dim a multiple of 32; or null codes for none, as
                         // with `prefill`
};

constexpr int32_t kGpuHeadDimMax = 512;

// New entries of one compressor from its projected tokens, and the tokens that later entries need
// into the carry. An entry is a softmax over the tokens of its window and, where windows overlap,
// of the window before; then normed, rotated, stored. Each sequence continues where its cache ends.
struct GpuAppendEntriesParams {
  const float* inputs;             // [n, 2, lanes]: values, then gates; lanes = width, or 2 width
                                   // where windows overlap
  const GpuRow* rows;              // [n]
  const GpuSequenceCache* caches;  // [sequences]
  KvType kv_type;
  bool of_index;  // the cache is `index`, not `entries`
  int64_t n;
  int64_t run_max;    // at least the most tokens of one sequence; 1 saves a launch
  int32_t ratio;      // tokens a window has
  int32_t width;      // values an entry has
  bool overlapping;   // then the carry has 2 ratio slots, else ratio
  const float* ape;   // [ratio, lanes]
  const float* gain;  // [width]
  float eps;
  int32_t rope_dim;
  const float* cosines;  // [n, rope_dim / 2] as rope_angles gives them for this ratio
  const float* sines;    // [n, rope_dim / 2]
};

// scores[i, e] = sum_h head_weights[i, h] * scale * relu(q[i, h] . key e), for the entries that
// row i sees: e < (position + 1) / ratio. A score does not depend on n.
struct GpuIndexScoresParams {
  const float* q;                  // [n, heads, dim]
  const float* head_weights;       // [n, heads]
  const GpuRow* rows;              // [n]
  const GpuSequenceCache* caches;  // [sequences]
  KvType kv_type;
  int64_t n;
  int32_t heads;
  int32_t dim;
  float scale;
  int32_t ratio;
  int64_t entries_max;  // at least what the row that sees most sees
  float* scores;        // [n, scores_stride], no more than what a row sees is written
  int64_t scores_stride;
};

// The top_k entries of best score, or all where there are no more, in ascending order. Of equal
// scores the lower entry wins. Scores that are NaN or minus infinity count as the lowest finite
// one, as on the CPU.
struct GpuSelectTopKParams {
  const float* scores;  // [n, scores_stride]
  int64_t scores_stride;
  const GpuRow* rows;  // [n]
  int64_t n;
  int32_t ratio;
  int32_t top_k;
  int32_t* selected;  // [n, top_k], no more than the count of a row is written
  int32_t* counts;    // [n]
};

// ---- how fast the device is ----

// Reads all of it. sums[i] is the sum of the 32-bit words of the i-th kGpuReadBlockBytes, modulo
// 2^32.
struct GpuReadBytesParams {
  const void* data;  // aligned to 16 bytes
  int64_t bytes;     // a multiple of 16
  uint32_t* sums;    // [bytes / kGpuReadBlockBytes, rounded up]
};
constexpr int64_t kGpuReadBlockBytes = 128 << 10;

// Tensor cores at work in registers: every warp multiplies the same matrices again and again.
// sums[i] is the sum of all elements of a b^T, times `rounds` and kGpuTileWarps.
struct GpuMultiplyTilesParams {
  const uint16_t* a;  // [kGpuTileRows, kGpuTileDepth] bfloat16s, aligned to 4 bytes as b is
  const uint16_t* b;  // [kGpuTileColumns, kGpuTileDepth]
  int64_t blocks;     // of kGpuTileWarps warps
  int32_t rounds;
  float* sums;  // [blocks]
};
constexpr int32_t kGpuTileRows = 64, kGpuTileColumns = 32, kGpuTileDepth = 16, kGpuTileWarps = 8;

struct GpuKernels {
  const char* name;  // "cuda" or "emulated"

  bool (*multiplies)(TensorType type);  // whether matmul knows weights of this type
  bool (*reads_bfloat16s)(const GpuMatmulParams& params);  // instead of x and xq
  void (*matmul)(const GpuMatmulParams& params, GpuStream stream);
  // Each product as matmul has it; at most kGpuMatmulsMax.
  void (*matmuls)(const GpuMatmulParams* products, int32_t count, GpuStream stream);
  void (*to_bfloat16)(const GpuToBfloat16Params& params, GpuStream stream);
  void (*quantize)(const GpuQuantizeParams& params, GpuStream stream);
  void (*rms_norm)(const GpuRmsNormParams& params, GpuStream stream);
  void (*rope)(const GpuRopeParams& params, GpuStream stream);

  // Around the matrices.
  void (*embed)(const GpuEmbedParams& params, GpuStream stream);
  void (*project_streams)(const GpuProjectStreamsParams& params, GpuStream stream);
  void (*enter_hyper)(const GpuEnterHyperParams& params, GpuStream stream);
  void (*leave_hyper)(const GpuLeaveHyperParams& params, GpuStream stream);
  void (*route)(const GpuRouteParams& params, GpuStream stream);
  // The size of tiles with which a prefill multiplies these experts.
  int32_t (*expert_tile_size)(const GpuPicks& picks, const GpuExpertMatrices& gate,
                              const GpuExpertMatrices& down);
  void (*tile_picks)(const GpuTilePicksParams& params, GpuStream stream);
  void (*expert_hidden)(const GpuExpertHiddenParams& params, GpuStream stream);
  void (*expert_output)(const GpuExpertOutputParams& params, GpuStream stream);
  void (*sum_experts)(const GpuSumExpertsParams& params, GpuStream stream);
  void (*argmax)(const GpuArgmaxParams& params, GpuStream stream);
  void (*add)(const GpuAddParams& params, GpuStream stream);

  // Attention.
  void (*rope_angles)(const GpuRopeAnglesParams& params, GpuStream stream);
  void (*norm_heads)(const GpuNormHeadsParams& params, GpuStream stream);
  int64_t (*attention_scratch_floats)(int64_t n, int32_t heads, int32_t dim);
  void (*attention)(const GpuAttentionParams& params, GpuStream stream);
  void (*append_entries)(const GpuAppendEntriesParams& params, GpuStream stream);
  void (*index_scores)(const GpuIndexScoresParams& params, GpuStream stream);
  void (*select_top_k)(const GpuSelectTopKParams& params, GpuStream stream);

  // How fast the device is.
  void (*read_bytes)(const GpuReadBytesParams& params, GpuStream stream);
  // Returns the multiply-adds of it all, each counted as two.
  int64_t (*multiply_tiles)(const GpuMultiplyTilesParams& params, GpuStream stream);
};

}  // namespace hearth
