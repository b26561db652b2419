// A block takes one row. Scores become unsigned keys of the same order; the key of the last entry
// to be kept is found digit by digit, from histograms; then each warp writes what is kept of its
// part of the entries, in order.
#include "gpu_kernels/common/grid.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/ops.h"

namespace hearth::HEARTH_GPU {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kDigitBits = 8;
constexpr int kBins = 1 << kDigitBits;
constexpr int kAtOnce = 8;  // scores a thread fetches together

struct Shared {
  // A counter for each lane, so that no two lanes of a warp ever meet in one or in its bank: most
  // scores share their first digit.
  uint32_t counts[kBins][kWarpLanes];
  uint32_t bins[kBins];
  uint32_t above[kWarps], equal[kWarps];  // entries of each warp's part
  uint32_t digit, needed;
};

// Larger for the larger score. Both zeros are one; what does not compare counts as the lowest.
__device__ __forceinline__ uint32_t key_of(float score) {
  constexpr uint32_t kLowest = 0xff7fffff;
  if (score == 0) score = 0;
  const uint32_t bits = score >= bits_to_float(kLowest) ? float_to_bits(score) : kLowest;
  return (bits & 0x80000000) != 0 ? ~bits : bits | 0x80000000;
}

// Calls f(key) for this thread's entries: every `step`th of first <= e < end.
template <typename F>
__device__ __forceinline__ void for_keys(const float* scores, int64_t first, int64_t end,
                                         int64_t step, F f) {
  for (int64_t e = first; e < end; e += kAtOnce * step) {
    float fetched[kAtOnce];
    HEARTH_UNROLL
    for (int i = 0; i < kAtOnce; ++i) fetched[i] = e + i * step < end ? scores[e + i * step] : 0.0f;
    HEARTH_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      if (e + i * step < end) f(key_of(fetched[i]));
    }
  }
}

// Counts the digits at `shift` of keys that begin with `prefix`.
__device__ __forceinline__ void count_digits(const float* scores, int64_t n, uint32_t prefix,
                                             int shift, Shared& shared) {
  uint32_t* all = &shared.counts[0][0];
  for (int i = threadIdx.x; i < kBins * kWarpLanes; i += kThreads) all[i] = 0;
  __syncthreads();
  const int lane = threadIdx.x % kWarpLanes;
  // What is above the digit; a shift by all 32 bits would not be defined.
  const uint32_t mask = shift + kDigitBits < 32 ? ~0u << (shift + kDigitBits) : 0;
  for_keys(scores, threadIdx.x, n, kThreads, [&](uint32_t key) {
    if ((key & mask) == prefix) atomicAdd(&shared.counts[key >> shift & (kBins - 1)][lane], 1u);
  });
  __syncthreads();
  const int warp = threadIdx.x / kWarpLanes;
  for (int bin = warp; bin < kBins; bin += kWarps) {
    uint32_t sum = shared.counts[bin][lane];
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    if (lane == 0) shared.bins[bin] = sum;
  }
  __syncthreads();
}

// The bin in which the entry number `needed` from the top lies, and its number there. One warp: a
// lane has eight bins in turn, lane 0 the highest ones.
__device__ __forceinline__ void find_digit(uint32_t needed, Shared& shared) {
  constexpr int kLaneBins = kBins / kWarpLanes;
  const int lane = threadIdx.x;
  const int highest = kBins - 1 - lane * kLaneBins;
  uint32_t own = 0;
  for (int i = 0; i < kLaneBins; ++i) own += shared.bins[highest - i];
  uint32_t through = own;
  for (int distance = 1; distance < kWarpLanes; distance *= 2) {
    const uint32_t before = __shfl_up_sync(kAllLanes, through, distance);
    if (lane >= distance) through += before;
  }
  uint32_t before = through - own;
  if (before >= needed || through < needed) return;
  int bin = highest;
  while (before + shared.bins[bin] < needed) before += shared.bins[bin--];
  shared.digit = bin;
  shared.needed = needed - before;
}

// Writes the entries with a key above `least` and the first `ties` of those with that key.
__device__ __forceinline__ void write_kept(const float* scores, int64_t n, uint32_t least,
                                           uint32_t ties, int32_t* selected, Shared& shared) {
  const int lane = threadIdx.x % kWarpLanes, warp = threadIdx.x / kWarpLanes;
  const int64_t part = divide_up(divide_up(n, kWarps), kWarpLanes) * kWarpLanes;
  const int64_t begin = warp * part, end = begin + part < n ? begin + part : n;
  uint32_t above = 0, equal = 0;
  for_keys(scores, begin + lane, end, kWarpLanes, [&](uint32_t key) {
    above += key > least ? 1 : 0;
    equal += key == least ? 1 : 0;
  });
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
    above += __shfl_xor_sync(kAllLanes, above, distance);
    equal += __shfl_xor_sync(kAllLanes, equal, distance);
  }
  if (lane == 0) {
    shared.above[warp] = above;
    shared.equal[warp] = equal;
  }
  __syncthreads();
  uint32_t equal_before = 0, above_before = 0;
  for (int w = 0; w < warp; ++w) {
    above_before += shared.above[w];
    equal_before += shared.equal[w];
  }
  const uint32_t lanes_before = (1u << lane) - 1;
  for (int64_t first = begin; first < end; first += kAtOnce * kWarpLanes) {
    float fetched[kAtOnce];
    HEARTH_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t e = first + i * kWarpLanes + lane;
      fetched[i] = e < end ? scores[e] : 0.0f;
    }
    HEARTH_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t e = first + i * kWarpLanes + lane;
      const uint32_t key = key_of(fetched[i]);
      const bool is_above = e < end && key > least, is_equal = e < end && key == least;
      const uint32_t above_lanes = __ballot_sync(kAllLanes, is_above ? 1 : 0);
      const uint32_t equal_lanes = __ballot_sync(kAllLanes, is_equal ? 1 : 0);
      const uint32_t own_above = above_before + __popc(above_lanes & lanes_before);
      const uint32_t own_equal = equal_before + __popc(equal_lanes & lanes_before);
      if (is_above || (is_equal && own_equal < ties)) {
        selected[own_above + (own_equal < ties ? own_equal : ties)] = static_cast<int32_t>(e);
      }
      above_before += __popc(above_lanes);
      equal_before += __popc(equal_lanes);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 1) select_top_k_kernel(GpuSelectTopKParams p) {
  Shared& shared = *dynamic_shared<Shared>();
  const int64_t row = blockIdx.x;
  const int64_t visible = (p.rows[row].position + 1) / p.ratio;
  const float* scores = p.scores + row * p.scores_stride;
  int32_t* selected = p.selected + row * p.top_k;
  const int32_t count = visible < p.top_k ? static_cast<int32_t>(visible) : p.top_k;
  if (threadIdx.x == 0) p.counts[row] = count;
  if (visible <= p.top_k) {
    for (int32_t e = threadIdx.x; e < count; e += kThreads) selected[e] = e;
    return;
  }
  uint32_t prefix = 0, needed = count;
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    count_digits(scores, visible, prefix, shift, shared);
    if (threadIdx.x < kWarpLanes) find_digit(needed, shared);
    __syncthreads();
    prefix |= shared.digit << shift;
    needed = shared.needed;
  }
  write_kept(scores, visible, prefix, needed, selected, shared);
}

}  // namespace

void select_top_k(const GpuSelectTopKParams& params, GpuStream stream) {
  if (params.n == 0) return;
  HEARTH_CHECK(params.top_k > 0);
  launch(select_top_k_kernel, {static_cast<uint32_t>(params.n), kThreads, sizeof(Shared)}, stream,
         params);
}

}  // namespace hearth::HEARTH_GPU
