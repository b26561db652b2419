// simt.h for the host. Blocks run one after another; the threads of a block are fibers, of which
// one runs until it waits for others. A kernel that would hang or read what nobody gave ends the
// program with the place of the call: a barrier that not all live threads of the block reach, a
// shuffle with lanes that are not there.
//
// One grid runs at a time in a process, so that shared memory and threadIdx can be plain variables.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <type_traits>

#include "base/check.h"
#include "gpu_kernels/emulation/matrix_unit.h"
#include "gpu_kernels/emulation/stream.h"
#include "gpu_kernels/gpu_kernels.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define HEARTH_UNROLL
#define HEARTH_NO_UNROLL

namespace hearth::emulated {

struct dim3 {
  constexpr dim3(uint32_t x_size = 1, uint32_t y_size = 1, uint32_t z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
  uint32_t x, y, z;
};

struct alignas(8) int2 {
  int32_t x, y;
};
struct alignas(16) int4 {
  int32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline int2 make_int2(int32_t x, int32_t y) { return {x, y}; }
inline int4 make_int4(int32_t x, int32_t y, int32_t z, int32_t w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// What the threads of a warp do together. `mask` names the lanes that take part; all of them must
// call, from one place. A shuffle gives the `value` of lane `source`, a ballot those of all as
// bits.
enum class Collective : uint32_t { kBarrier, kShuffle, kBallot };
using Place = std::source_location;

uint64_t warp_collective(Collective kind, uint32_t mask, uint32_t source, uint64_t value,
                         Place place);
void block_barrier(const Place& place);
void* block_memory();  // the dynamic shared memory
uint32_t own_lane();
uint32_t own_warp();
void misuse(const char* rule, const Place& place);  // does not return

inline void __syncthreads(const Place& place = Place::current()) { block_barrier(place); }

inline void __syncwarp(uint32_t mask = 0xffffffff, const Place& place = Place::current()) {
  warp_collective(Collective::kBarrier, mask, 0, 0, place);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, const Place& place = Place::current()) {
  const uint64_t value = predicate != 0 ? 1 : 0;
  return static_cast<uint32_t>(warp_collective(Collective::kBallot, mask, 0, value, place));
}
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline int __any_sync(uint32_t mask, int predicate, const Place& place = Place::current()) {
  return __ballot_sync(mask, predicate, place) != 0 ? 1 : 0;
}
inline int __all_sync(uint32_t mask, int predicate, const Place& place = Place::current()) {
  return __ballot_sync(mask, predicate, place) == mask ? 1 : 0;
}

template <typename T>
T shuffle_from(uint32_t mask, T value, uint32_t source, const Place& place) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  bits = warp_collective(Collective::kShuffle, mask, source, bits, place);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// `width` splits the warp into parts that shuffle within themselves; where a source lies outside, a
// lane keeps its own.
template <typename T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = 32,
              const Place& place = Place::current()) {
  const uint32_t part = own_lane() & ~static_cast<uint32_t>(width - 1);
  return shuffle_from(mask, value, part + (static_cast<uint32_t>(lane) & (width - 1)), place);
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32,
                  const Place& place = Place::current()) {
  const uint32_t own = own_lane(), from = own ^ static_cast<uint32_t>(lanes);
  const uint32_t end = (own & ~static_cast<uint32_t>(width - 1)) + width;
  return shuffle_from(mask, value, from < end ? from : own, place);
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T value, uint32_t lanes, int width = 32,
                   const Place& place = Place::current()) {
  const uint32_t own = own_lane(), end = (own & ~static_cast<uint32_t>(width - 1)) + width;
  return shuffle_from(mask, value, own + lanes < end ? own + lanes : own, place);
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, uint32_t lanes, int width = 32,
                 const Place& place = Place::current()) {
  const uint32_t own = own_lane(), begin = own & ~static_cast<uint32_t>(width - 1);
  return shuffle_from(mask, value, own >= begin + lanes ? own - lanes : own, place);
}

// One fiber runs at a time, and it changes only where threads wait: these are atomic as they stand.
template <typename T, typename F>
T atomic_update(T* at, F change) {
  const T old = *at;
  *at = change(old);
  return old;
}
template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return atomic_update(at, [=](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return atomic_update(at, [=](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return atomic_update(at, [=](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return atomic_update(at, [=](T old) { return old | value; });
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return atomic_update(at, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return atomic_update(at, [=](T old) { return old == expected ? value : old; });
}

// ---- the names of ours ----

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(block_memory());
}

// Copies happen only when they are waited for, so that what reads too early reads what was there.
void copy16_async(void* shared, const void* global, const Place& place = Place::current());
// Of what is not there no byte is read: zeros.
inline void copy16_or_zeros_async(void* shared, const void* global, bool is_there,
                                  const Place& place = Place::current()) {
  static constexpr uint4 kZeros = {};
  copy16_async(shared, is_there ? global : &kZeros, place);
}
void commit_copies();
void wait_for_copies(int left);
template <int kLeft>
void wait_copies() {
  wait_for_copies(kLeft);
}

inline int32_t dot4(int32_t a, int32_t b, int32_t sum) {
  for (int shift = 0; shift < 32; shift += 8) {
    sum += static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift);
  }
  return sum;
}

// The highest bit of a selector means something else on hardware; kernels leave it clear.
inline uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selectors) {
  HEARTH_CHECK((selectors & 0x8888) == 0);
  const uint64_t bytes = low | static_cast<uint64_t>(high) << 32;
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t selector = selectors >> (4 * i) & 7;
    picked |= (static_cast<uint32_t>(bytes >> (8 * selector)) & 0xff) << (8 * i);
  }
  return picked;
}

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
};

// Runs the grid now. `thread` is what one thread does.
void run_grid(const LaunchShape& shape, const std::function<void()>& thread);

template <typename... Params>
void launch(void (*kernel)(Params...), const LaunchShape& shape, GpuStream stream,
            std::type_identity_t<Params>... arguments) {
  auto grid = [=] { run_grid(shape, [&] { kernel(arguments...); }); };
  if (stream == nullptr) {
    grid();
  } else {
    static_cast<EmulatedStream*>(stream)->enqueue(grid);
  }
}

struct DeviceLimits {
  int64_t processors, shared_bytes;
};
inline DeviceLimits device_limits() { return {4, 227 << 10}; }

// Blocks that the device holds at once: few, so that kernels that count on it have more to do.
template <typename... Params>
int64_t blocks_at_once(void (*)(Params...), uint32_t, size_t) {
  return 4;
}

// The order in which threads run: 0 the lowest that can first, else a random one, to show where one
// is missing that a kernel should have made sure of. Blocks run forwards or, by chance, backwards.
void set_thread_order(uint64_t seed);

}  // namespace hearth::emulated
