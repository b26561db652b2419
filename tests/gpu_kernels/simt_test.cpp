// The emulated threads themselves: what they compute together, and that a kernel which would hang
// or read nonsense on hardware is caught.
#include <doctest/doctest.h>

#include <vector>

#include "child.h"
#include "gpu_kernels/common/numbers.h"
#include "gpu_kernels/common/simt.h"

namespace hearth::emulated {
namespace {

using test::failed_check;

bool says(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

__global__ void reverse_kernel(int* values) {
  int* shared = dynamic_shared<int>();
  shared[threadIdx.x] = values[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  values[blockIdx.x * blockDim.x + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void reverse_without_barrier_kernel(int* values) {
  int* shared = dynamic_shared<int>();
  shared[threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void shuffles_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int* own = out + 6 * lane;
  own[0] = __shfl_sync(kAllLanes, lane, 5);
  own[1] = __shfl_xor_sync(kAllLanes, lane, 3);
  own[2] = __shfl_down_sync(kAllLanes, lane, 4);
  own[3] = __shfl_up_sync(kAllLanes, lane, 4);
  own[4] = __shfl_sync(kAllLanes, lane, 1, 8);
  own[5] = static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0 ? 1 : 0));
}

__global__ void halves_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < 16) {
    out[lane] = __shfl_xor_sync(0x0000ffff, lane, 1);
  } else {
    out[lane] = __shfl_xor_sync(0xffff0000, lane, 2);
  }
}

__global__ void count_kernel(int* sum, int* largest) {
  atomicAdd(sum, 2);
  atomicMax(largest, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}

__global__ void last_block_kernel(int* last) { *last = static_cast<int>(blockIdx.x); }

__global__ void early_return_kernel(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void copy_kernel(const uint4* from, uint4* to, bool waits) {
  uint4* shared = dynamic_shared<uint4>();
  copy16_async(shared + threadIdx.x, from + threadIdx.x);
  commit_copies();
  if (waits) wait_copies<0>();
  to[threadIdx.x] = shared[threadIdx.x];
}

// a is stored row by row, b column by column, as the rows that loads want.
__global__ void multiply_matrices_kernel(const uint16_t* values, float* sums) {
  uint16_t* shared = dynamic_shared<uint16_t>();
  for (int i = threadIdx.x % 32; i < 24 * 16 && threadIdx.x >= 32; i += 32) shared[i] = values[i];
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x % 32);
  uint32_t a[4], b[4];
  load_matrices(a, shared + lane % 16 * 16 + lane / 16 * 8);
  load_matrices(b, shared + (16 + lane % 8) * 16 + lane / 8 % 2 * 8);
  float own[4] = {1, 2, 3, 4};
  for (int i = 0; i < 2; ++i) multiply_matrices(own, a, b[2], b[3]);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    sums[(threadIdx.x / 32 * 16 + row) * 8 + column] = own[i] - static_cast<float>(i + 1);
  }
}

// Four matrices of 8 rows of 8 values, one after the other.
__global__ void load_transposed_kernel(const uint16_t* values, uint32_t* out) {
  uint16_t* shared = dynamic_shared<uint16_t>();
  for (int i = 0; i < 8; ++i) shared[8 * threadIdx.x + i] = values[8 * threadIdx.x + i];
  __syncwarp();
  uint32_t own[4];
  load_matrices_transposed(own, shared + 8 * threadIdx.x);
  for (int m = 0; m < 4; ++m) out[32 * m + threadIdx.x] = own[m];
}

__global__ void load_unaligned_matrices_kernel() {
  uint32_t out[4];
  load_matrices(out, dynamic_shared<char>() + 8);
}

__global__ void load_matrices_in_half_a_warp_kernel() {
  uint32_t out[4];
  if (threadIdx.x < 16) load_matrices(out, dynamic_shared<char>());
}

__global__ void half_barrier_kernel() {
  if (threadIdx.x < 32) __syncthreads();
  __shfl_xor_sync(kAllLanes, 1, 1);
  if (threadIdx.x >= 32) {
    for (int i = 0; i < 2; ++i) __syncthreads();
  }
}

__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void shuffle_in_half_a_warp_kernel() {
  if (threadIdx.x % 2 == 0) __shfl_xor_sync(kAllLanes, 1, 2);
}

__global__ void shuffle_and_barrier_kernel() {
  if (threadIdx.x % 2 == 0) {
    __shfl_xor_sync(kAllLanes, 1, 2);
  } else {
    __syncthreads();
  }
}

__global__ void shuffle_kernel(uint32_t mask, int source) { __shfl_sync(mask, 1, source); }

__global__ void unaligned_kernel(const char* from) {
  copy16_async(dynamic_shared<char>() + 8, from);
}

std::vector<int> counted(int count) {
  std::vector<int> values(count);
  for (int i = 0; i < count; ++i) values[i] = i;
  return values;
}

}  // namespace

TEST_CASE("blocks, barriers and shared memory") {
  for (const uint64_t order : {0, 1, 2}) {
    set_thread_order(order);
    std::vector<int> values = counted(3 * 200);
    launch(reverse_kernel, {3, 200, 200 * sizeof(int)}, nullptr, values.data());
    bool right = true;
    for (int i = 0; i < 3 * 200; ++i) right &= values[i] == i / 200 * 200 + 199 - i % 200;
    CHECK(right);
  }
  set_thread_order(0);
}

TEST_CASE("a missing barrier gives a wrong result") {
  set_thread_order(1);
  std::vector<int> values = counted(64);
  launch(reverse_without_barrier_kernel, {1, 64, 64 * sizeof(int)}, nullptr, values.data());
  int wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += values[i] != 63 - i ? 1 : 0;
  CHECK(wrong > 0);
  set_thread_order(0);
}

TEST_CASE("blocks run in either order") {
  int last = -1;
  launch(last_block_kernel, {5, 1}, nullptr, &last);
  CHECK(last == 4);
  set_thread_order(1);
  launch(last_block_kernel, {5, 1}, nullptr, &last);
  CHECK(last == 0);
  set_thread_order(0);
}

TEST_CASE("shuffles and ballots") {
  for (const uint64_t order : {0, 7}) {
    set_thread_order(order);
    std::vector<int> out(6 * 32);
    launch(shuffles_kernel, {1, 32}, nullptr, out.data());
    for (int lane = 0; lane < 32; ++lane) {
      const std::vector<int> own(out.begin() + 6 * lane, out.begin() + 6 * lane + 6);
      CHECK(own == std::vector<int>{5, lane ^ 3, lane < 28 ? lane + 4 : lane,
                                    lane >= 4 ? lane - 4 : lane, lane / 8 * 8 + 1, 0x49249249});
    }
    std::vector<int> halves(32);
    launch(halves_kernel, {1, 32}, nullptr, halves.data());
    for (int lane = 0; lane < 32; ++lane) CHECK(halves[lane] == (lane < 16 ? lane ^ 1 : lane ^ 2));
  }
  set_thread_order(0);
}

TEST_CASE("atomics, and threads that return before a barrier") {
  int sum = 0, largest = 0;
  launch(count_kernel, {dim3(2, 3), 33}, nullptr, &sum, &largest);
  CHECK(sum == 2 * 6 * 33);
  CHECK(largest == 65);
  std::vector<int> out(64);
  launch(early_return_kernel, {1, 64}, nullptr, out.data());
  CHECK(out[39] == 1);
  CHECK(out[40] == 0);
}

TEST_CASE("copies that nobody waited for have not happened") {
  std::vector<uint4> from(32, uint4{1, 2, 3, 4}), to(32);
  launch(copy_kernel, {1, 32, 32 * sizeof(uint4)}, nullptr, from.data(), to.data(), true);
  CHECK(to[31].w == 4);
  launch(copy_kernel, {1, 32, 32 * sizeof(uint4)}, nullptr, from.data(), to.data(), false);
  CHECK(to[31].w == 0xffffffff);
}

TEST_CASE("tensor cores multiply as plain loops do") {
  std::vector<uint16_t> values(24 * 16);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = float_to_bfloat16(static_cast<float>(static_cast<int>(i * i * 7 % 61) - 30));
  }
  for (const uint64_t order : {0, 1, 2}) {
    set_thread_order(order);
    std::vector<float> sums(2 * 16 * 8);
    launch(multiply_matrices_kernel, {1, 64, 24 * 16 * 2}, nullptr, values.data(), sums.data());
    int wrong = 0;
    for (int i = 0; i < 16 * 8; ++i) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) {
        sum += bfloat16_to_float(values[i / 8 * 16 + k]) *
               bfloat16_to_float(values[(16 + i % 8) * 16 + k]);
      }
      wrong += (sums[i] != 2 * sum ? 1 : 0) + (sums[16 * 8 + i] != 2 * sum ? 1 : 0);
    }
    CHECK(wrong == 0);
  }
  set_thread_order(0);
}

TEST_CASE("transposed matrices: lane 4 i + j has rows 2 j and 2 j + 1 of column i") {
  std::vector<uint16_t> values(4 * 8 * 8);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i);
  std::vector<uint32_t> out(4 * 32);
  launch(load_transposed_kernel, {1, 32, 4 * 8 * 16}, nullptr, values.data(), out.data());
  int wrong = 0;
  for (uint32_t i = 0; i < 4 * 32; ++i) {
    const uint32_t first = i / 32 * 64 + i % 4 * 2 * 8 + i % 32 / 4;
    wrong += out[i] != (first | (first + 8) << 16) ? 1 : 0;
  }
  CHECK(wrong == 0);
}

TEST_CASE("kernels that would hang or read nonsense are caught") {
  const std::string barrier = failed_check([] { launch(half_barrier_kernel, {1, 64}, nullptr); });
  CHECK(says(barrier, "all live threads of the block"));
  CHECK(says(barrier, "simt_test.cpp"));
  CHECK(says(failed_check([] {
               launch(two_barriers_kernel, {1, 64}, nullptr);
             }),
             "the same __syncthreads"));
  CHECK(says(failed_check([] {
               launch(shuffle_in_half_a_warp_kernel, {1, 32}, nullptr);
             }),
             "all lanes of the mask"));
  CHECK(says(failed_check([] {
               launch(shuffle_and_barrier_kernel, {1, 32}, nullptr);
             }),
             "all lanes of the mask"));
  CHECK(says(failed_check([] {
               launch(shuffle_kernel, {1, 16}, nullptr, kAllLanes, 0);
             }),
             "exist"));
  CHECK(says(failed_check([] {
               launch(shuffle_kernel, {1, 32}, nullptr, 0xffffu, 0);
             }),
             "a lane is in the mask"));
  CHECK(says(failed_check([] {
               launch(shuffle_kernel, {1, 16}, nullptr, 0xffffu, 20);
             }),
             "that a shuffle reads"));
  CHECK(says(failed_check([] {
               launch(load_unaligned_matrices_kernel, {1, 32, 64}, nullptr);
             }),
             "aligned"));
  CHECK(says(failed_check([] {
               launch(load_matrices_in_half_a_warp_kernel, {1, 32, 64}, nullptr);
             }),
             "all lanes of the mask"));
  alignas(16) char bytes[32] = {};
  CHECK(says(failed_check([&] {
               launch(unaligned_kernel, {1, 1, 64}, nullptr, bytes);
             }),
             "aligned"));
}

TEST_CASE("single instructions") {
  CHECK(dot4(0x7f80ff01, 0x02030405, 10) == 10 + 0x7f * 2 - 128 * 3 - 4 + 5);
  CHECK(pick_bytes(0x33221100, 0x77665544, 0x7410) == 0x77441100);
  CHECK(half_to_float(0x3c00) == 1.0f);
  CHECK(half_to_float(0x8001) == -0x1p-24f);
  CHECK(half_to_float(0x7bff) == 65504.0f);
  CHECK(float_to_bfloat16(1.00390625f) == 0x3f80);  // a tie goes to even
  CHECK(float_to_bfloat16(1.01171875f) == 0x3f82);
  CHECK(power_of_two(0) == 0x1p-127f);
  CHECK(pack_bfloat16s(1.0f, -2.0f) == 0xc0003f80);
  for (int i = 0; i < 4; ++i) {
    const float values[4] = {-128, -1, 0, 127};
    CHECK(signed_byte_to_float(0x7f00ff80, i) == values[i]);
  }
  alignas(4) const unsigned char bytes[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  for (int i = 0; i < 4; ++i) {
    CHECK(load_word(bytes + i) == 0x03020100u + 0x01010101u * i);
    uint32_t words[2];
    load_words(bytes + i, words);
    CHECK(words[1] == 0x07060504u + 0x01010101u * i);
  }
}

}  // namespace hearth::emulated
