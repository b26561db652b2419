#include "gpu_kernels/emulation/matrix_unit.h"

#include <cstring>

#include "gpu_kernels/emulation/simt_host.h"

namespace hearth::emulated {
namespace {

constexpr uint32_t kLanes = 32, kWarpsMax = 32;

// What a lane gives for the others to read.
struct Operands {
  uint32_t a[4];  // or a row
  uint32_t b[2];
};
// Of one instruction and the next in turn: whoever is at the next but one has met all others at the
// next, when they had read what was given for the first.
Operands given[kWarpsMax][2][kLanes];
uint32_t turns[kWarpsMax][kLanes];

// What all lanes of the warp gave, this one `own`.
const Operands* meet(const Operands& own, const Place& place) {
  const uint32_t lane = own_lane(), warp = own_warp();
  Operands* lanes = given[warp][turns[warp][lane]++ % 2];
  lanes[lane] = own;
  __syncwarp(0xffffffff, place);
  return lanes;
}

const Operands* meet_with_row(const void* row, const Place& place) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    misuse("a row of a matrix is aligned to 16 bytes", place);
  Operands own = {};
  std::memcpy(own.a, row, sizeof(own.a));
  return meet(own, place);
}

float value(uint32_t pair, uint32_t place) {
  const uint32_t bits = place == 0 ? pair << 16 : pair & 0xffff0000;
  return __builtin_bit_cast(float, bits);
}

float product(const Operands* lanes, uint32_t row, uint32_t column) {
  float sum = 0;
  for (uint32_t k = 0; k < 16; ++k) {
    const uint32_t pair = k % 8 / 2;
    const uint32_t a = lanes[row % 8 * 4 + pair].a[row / 8 + k / 8 * 2];
    const uint32_t b = lanes[column * 4 + pair].b[k / 8];
    sum += value(a, k % 2) * value(b, k % 2);
  }
  return sum;
}

}  // namespace

void load_matrices(uint32_t (&out)[4], const void* row, const Place& place) {
  const Operands* lanes = meet_with_row(row, place);
  const uint32_t lane = own_lane();
  for (uint32_t m = 0; m < 4; ++m) out[m] = lanes[8 * m + lane / 4].a[lane % 4];
}

void load_matrices_transposed(uint32_t (&out)[4], const void* row, const Place& place) {
  const Operands* lanes = meet_with_row(row, place);
  const uint32_t lane = own_lane();
  const auto value_of = [&](uint32_t given_row) {
    return lanes[given_row].a[lane / 8] >> (lane / 4 % 2 * 16) & 0xffff;
  };
  for (uint32_t m = 0; m < 4; ++m) {
    const uint32_t first = 8 * m + lane % 4 * 2;
    out[m] = value_of(first) | value_of(first + 1) << 16;
  }
}

void multiply_matrices(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                       const Place& place) {
  const Operands* lanes = meet({{a[0], a[1], a[2], a[3]}, {b0, b1}}, place);
  const uint32_t lane = own_lane();
  for (uint32_t i = 0; i < 4; ++i) {
    sums[i] += product(lanes, lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
  }
}

}  // namespace hearth::emulated
