#include "gpu_kernels/bench/random_data.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <random>

#include "base/check.h"

namespace hearth::bench {
namespace {

constexpr unsigned char kTopExponentBit = 0x40;  // of the byte with a float's sign

bool is_plain(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

// Floats of 16 bits lie at even places in every format that has them; without the top bit of the
// exponent none exceeds 2.
void bound_floats(TensorType type, std::vector<unsigned char>& bytes) {
  const size_t step = type == TensorType::kF32 ? 4 : 2;
  for (size_t i = step - 1; i < bytes.size(); i += step) {
    bytes[i] &= static_cast<unsigned char>(~kTopExponentBit);
    // Plain weights are not nearly all next to zero.
    if (is_plain(type)) bytes[i] |= 0x38;
  }
}

// Blocks that begin with the exponent of their scale, a byte.
void bound_exponents(TensorType type, std::vector<unsigned char>& bytes) {
  const TypeInfo& info = type_info(type);
  for (size_t at = 0; at < bytes.size(); at += info.block_bytes) {
    unsigned char* block = bytes.data() + at;
    if (type == TensorType::kF8_E4M3) {
      for (int i = 1; i < info.block_bytes; ++i) {
        block[i] &= static_cast<unsigned char>(~kTopExponentBit);  // no NaN
      }
    }
    block[0] = static_cast<unsigned char>(112 + block[0] % 16);
  }
}

}  // namespace

std::vector<unsigned char> random_weights(TensorType type, int64_t bytes) {
  HEARTH_CHECK(bytes % type_info(type).block_bytes == 0);
  std::mt19937_64 random(static_cast<uint64_t>(type));
  std::vector<unsigned char> weights(bytes);
  for (size_t at = 0; at < weights.size(); at += 8) {
    const uint64_t word = random();
    std::memcpy(weights.data() + at, &word, std::min<size_t>(8, weights.size() - at));
  }
  if (type == TensorType::kMXFP4 || type == TensorType::kF8_E4M3) {
    bound_exponents(type, weights);
  } else {
    bound_floats(type, weights);
  }
  return weights;
}

std::vector<float> random_floats(int64_t count) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

std::vector<int32_t> random_choices(int64_t rows, int64_t count, int64_t end) {
  HEARTH_CHECK(count <= end);
  std::mt19937 random(11);
  std::vector<int32_t> all(end), choices;
  std::iota(all.begin(), all.end(), 0);
  for (int64_t i = 0; i < rows; ++i)
    std::ranges::sample(all, std::back_inserter(choices), count, random);
  return choices;
}

}  // namespace hearth::bench
