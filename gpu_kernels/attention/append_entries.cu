// A block takes one row of the batch and, where its token is the last of a window, makes the entry.
// The carry is written by a second kernel, as entries of other blocks may still read what it
// replaces; a token on its own replaces nothing that is read.
#include "gpu_kernels/attention/kv_rows.h"
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kTokensAtOnce = 8;  // of an entry, fetched together

__device__ __forceinline__ int32_t lanes_of(const GpuAppendEntriesParams& p) {
  return p.overlapping ? 2 * p.width : p.width;
}
__device__ __forceinline__ int32_t carry_slots(const GpuAppendEntriesParams& p) {
  return p.overlapping ? 2 * p.ratio : p.ratio;
}
__device__ __forceinline__ const GpuCompressedCache& cache_of(const GpuAppendEntriesParams& p,
                                                              int32_t sequence) {
  const GpuSequenceCache& cache = p.caches[sequence];
  return p.of_index ? cache.index : cache.entries;
}

__device__ __forceinline__ float* carried(const GpuAppendEntriesParams& p,
                                          const GpuCompressedCache& cache, int64_t position) {
  return cache.carry + position % carry_slots(p) * 2 * lanes_of(p);
}

// The projected value of the token `back` before row i, of the batch or carried; its gate lies
// `lanes` floats behind.
__device__ __forceinline__ const float* projected(const GpuAppendEntriesParams& p,
                                                  const GpuCompressedCache& cache, int64_t i,
                                                  int64_t back) {
  const GpuRow& row = p.rows[i];
  if (i >= back && p.rows[i - back].sequence == row.sequence) {
    return p.inputs + (i - back) * 2 * lanes_of(p);
  }
  return carried(p, cache, row.position - back);
}

// The token into the carry, if it is among the last of its sequence that this has room for.
__device__ __forceinline__ void carry_token(const GpuAppendEntriesParams& p, int64_t i) {
  const GpuRow& row = p.rows[i];
  const int64_t later = i + carry_slots(p);
  if (later < p.n && p.rows[later].sequence == row.sequence) return;
  const float* from = p.inputs + i * 2 * lanes_of(p);
  float* to = carried(p, cache_of(p, row.sequence), row.position);
  for (int32_t c = threadIdx.x; c < 2 * lanes_of(p); c += kThreads) to[c] = from[c];
}

// The softmax over the tokens of the entry that row i completes, of channel c.
__device__ __forceinline__ float mix_channel(const GpuAppendEntriesParams& p,
                                             const GpuCompressedCache& cache, int64_t i,
                                             int32_t tokens, int32_t c) {
  const int32_t lanes = lanes_of(p);
  float largest = bits_to_float(0xff800000), total = 0, mixed = 0;
  for (int32_t first = 0; first < tokens; first += kTokensAtOnce) {
    float values[kTokensAtOnce], gates[kTokensAtOnce];
    float least = largest;  // what all terms so far and these are relative to
    HEARTH_UNROLL
    for (int j = 0; j < kTokensAtOnce; ++j) {
      const int32_t token = first + j;
      values[j] = 0;
      gates[j] = bits_to_float(0xff800000);
      if (token >= tokens) continue;
      // Where windows overlap, the later one has the upper half of the lanes.
      const bool own = token >= tokens - p.ratio;
      const int32_t lane = p.overlapping && own ? p.width + c : c;
      const float* value = projected(p, cache, i, tokens - 1 - token) + lane;
      values[j] = value[0];
      gates[j] = value[lanes] + p.ape[token % p.ratio * lanes + lane];
      least = fmaxf(least, gates[j]);
    }
    const float correction = expf(largest - least);
    total *= correction;
    mixed *= correction;
    largest = least;
    HEARTH_UNROLL
    for (int j = 0; j < kTokensAtOnce; ++j) {
      const float term = expf(gates[j] - largest);
      total += term;
      mixed = fmaf(term, values[j], mixed);
    }
  }
  return mixed / total;
}

// The sum over the block, in every thread.
__device__ __forceinline__ float block_sum(float value) {
  __shared__ float sums[kWarps];
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[i];
  return sum;
}

__global__ void __launch_bounds__(kThreads) append_kernel(GpuAppendEntriesParams p) {
  float* entry = dynamic_shared<float>();  // [width]
  const int64_t i = blockIdx.x;
  const GpuRow& row = p.rows[i];
  const GpuCompressedCache& cache = cache_of(p, row.sequence);
  if (p.run_max == 1) carry_token(p, i);
  if ((row.position + 1) % p.ratio != 0) return;

  const int64_t number = row.position / p.ratio;
  const int32_t tokens = p.overlapping && number > 0 ? 2 * p.ratio : p.ratio;
  float squares = 0;
  for (int32_t c = threadIdx.x; c < p.width; c += kThreads) {
    entry[c] = mix_channel(p, cache, i, tokens, c);
    squares = fmaf(entry[c], entry[c], squares);
  }
  const float factor = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(p.width) + p.eps);
  for (int32_t c = threadIdx.x; c < p.width; c += kThreads)
    entry[c] = entry[c] * factor * p.gain[c];
  __syncthreads();
  const int32_t plain = p.width - p.rope_dim, pairs = p.rope_dim / 2;
  for (int32_t c = threadIdx.x; c < p.width; c += kThreads) {
    float value = entry[c];
    if (c >= plain) {
      const int32_t at = c - plain;
      const float cosine = p.cosines[i * pairs + at / 2], sine = p.sines[i * pairs + at / 2];
      value =
          at % 2 == 0 ? value * cosine - entry[c + 1] * sine : entry[c - 1] * sine + value * cosine;
    }
    store_kv(value, p.kv_type, cache.rows, number * p.width + c);
  }
}

__global__ void __launch_bounds__(kThreads) carry_kernel(GpuAppendEntriesParams p) {
  carry_token(p, blockIdx.x);
}

}  // namespace

void append_entries(const GpuAppendEntriesParams& params, GpuStream stream) {
  if (params.n == 0) return;
  const uint32_t blocks = static_cast<uint32_t>(params.n);
  launch(append_kernel, {blocks, kThreads, params.width * sizeof(float)}, stream, params);
  if (params.run_max != 1) launch(carry_kernel, {blocks, kThreads}, stream, params);
}

}  // namespace hearth::HEARTH_GPU
