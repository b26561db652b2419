// Packs the codebooks.
#include "cpu_kernels/bodies/packed_rows.h"

#include <algorithm>
#include <span>

#include "base/check.h"
#include "base/codebooks.h"

namespace hearth {
namespace {

uint32_t number_of(int magnitude, std::span<const uint8_t> magnitudes) {
  const auto found = std::find(magnitudes.begin(), magnitudes.end(), magnitude);
  HEARTH_CHECK(found != magnitudes.end());
  return static_cast<uint32_t>(found - magnitudes.begin());
}

template <typename Row>
PackedRows pack(std::span<const Row> rows, std::span<const uint8_t> magnitudes) {
  constexpr int kWeights = sizeof(Row), kBits = 16 / kWeights;
  PackedRows packed = {};
  for (size_t r = 0; r < rows.size(); ++r) {
    uint32_t fields = 0;
    for (int i = 0; i < kWeights; ++i) {
      fields |= number_of(static_cast<int>(rows[r] >> (8 * i)) & 255, magnitudes) << (kBits * i);
    }
    packed.low[r] = static_cast<uint8_t>(fields);
    packed.high[r] = static_cast<uint8_t>(fields >> 8);
  }
  const size_t sign = kWeights == 8 ? 4 : 8;
  for (size_t i = 0; i < 64; ++i) {
    const size_t number = i % sign;
    const int magnitude = number < magnitudes.size() ? magnitudes[number] : 0;
    const bool negative = i % (2 * sign) >= sign;
    packed.values[i] = static_cast<uint8_t>(kPackedOffset + (negative ? -magnitude : magnitude));
  }
  return packed;
}

constexpr uint8_t kIq2[] = {8, 25, 43};
constexpr uint8_t kIq3Xxs[] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr uint8_t kIq3S[] = {1, 3, 5, 7, 9, 11, 13, 15};

}  // namespace

const PackedRows kPackedIq2Xxs = pack<uint64_t>(kIq2XxsRows, kIq2);
const PackedRows kPackedIq2Xs = pack<uint64_t>(kIq2XsRows, kIq2);
const PackedRows kPackedIq2S = pack<uint64_t>(kIq2SRows, kIq2);
const PackedRows kPackedIq3Xxs = pack<uint32_t>(kIq3XxsRows, kIq3Xxs);
const PackedRows kPackedIq3S = pack<uint32_t>(kIq3SRows, kIq3S);

}  // namespace hearth
