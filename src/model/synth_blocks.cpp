#include "model/synth_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "format/dequantize.h"

namespace hearth {
namespace {

// Where a block keeps its half-float scale and minimum, and what its weights are when all other
// bits are random.
struct ScaleFields {
  TensorType type;
  int scale_offset;
  int minimum_offset;  // -1: none
  float minimum;       // that makes the mean weight zero, for scale 1
  float unit_rms;      // of the weights for scale 1
};

constexpr auto kScaleFields = std::to_array<ScaleFields>({
    {TensorType::kQ4_0, 0, -1, 0, 4.637f},
    {TensorType::kQ4_1, 0, 2, -7.5f, 4.610f},
    {TensorType::kQ5_0, 0, -1, 0, 9.247f},
    {TensorType::kQ5_1, 0, 2, -15.5f, 9.233f},
    {TensorType::kQ8_0, 0, -1, 0, 73.87f},
    {TensorType::kQ2_K, 80, 82, 1.5f, 9.845f},
    {TensorType::kQ3_K, 108, -1, 0, 43.30f},
    {TensorType::kQ4_K, 0, 2, 7.5f, 168.1f},
    {TensorType::kQ5_K, 0, 2, 15.5f, 337.3f},
    {TensorType::kQ6_K, 208, -1, 0, 1365.0f},
    {TensorType::kIQ2_XXS, 0, -1, 0, 53.37f},
    {TensorType::kIQ2_XS, 0, -1, 0, 55.90f},
    {TensorType::kIQ2_S, 0, -1, 0, 56.41f},
    {TensorType::kIQ3_XXS, 0, -1, 0, 142.4f},
    {TensorType::kIQ3_S, 0, -1, 0, 140.2f},
    {TensorType::kIQ4_NL, 0, -1, 0, 67.44f},
    {TensorType::kIQ4_XS, 0, -1, 0, 1246.0f},
});

constexpr double kMxfp4UnitRms = 5.852;  // of the codes; the scale of byte 128 is 1

const ScaleFields& scale_fields(TensorType type) {
  const auto* found = std::find_if(kScaleFields.begin(), kScaleFields.end(),
                                   [&](const ScaleFields& f) { return f.type == type; });
  HEARTH_CHECK(found != kScaleFields.end());
  return *found;
}

bool is_plain(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

void put_half(unsigned char* to, uint16_t half) { std::memcpy(to, &half, sizeof(half)); }

// Turns random bits into bits that a quantizer could have written.
void tidy_codes(TensorType type, unsigned char* block) {
  if (type == TensorType::kQ8_0) {
    auto* codes = reinterpret_cast<signed char*>(block + 2);
    for (int i = 0; i < 32; ++i) codes[i] = std::max<signed char>(codes[i], -127);
  }
  // Each group's minimum code follows its scale code, so that the group is centred on zero.
  const auto twice = [](unsigned char byte) {
    return static_cast<unsigned char>((byte & 15) * 17);
  };
  if (type == TensorType::kQ2_K) std::transform(block, block + 16, block, twice);
  if (type == TensorType::kQ4_K || type == TensorType::kQ5_K) {
    std::copy(block + 4, block + 8, block + 8);
    std::transform(block + 12, block + 16, block + 12, twice);
  }
}

}  // namespace

void RandomWords::copy(int64_t bytes, unsigned char* out) const {
  const int64_t whole = bytes / 8;
  for (int64_t i = 0; i < whole; ++i) {
    const uint64_t word = (*this)[static_cast<uint64_t>(i)];
    std::memcpy(out + 8 * i, &word, 8);
  }
  const uint64_t last = (*this)[static_cast<uint64_t>(whole)];
  std::memcpy(out + 8 * whole, &last, static_cast<size_t>(bytes % 8));
}

float RandomWords::normal(uint64_t index) const {
  // Four uniform 16-bit numbers: their sum has this mean and standard deviation.
  constexpr float kMean = 4 * 32767.5f;
  constexpr float kDeviation = 37837.23f;
  const uint64_t word = (*this)[index];
  const auto sum = static_cast<int32_t>((word & 0xffff) + (word >> 16 & 0xffff) +
                                        (word >> 32 & 0xffff) + (word >> 48));
  return (static_cast<float>(sum) - kMean) * (1 / kDeviation);
}

RandomBlocks::RandomBlocks(TensorType type, float mean, float spread)
    : type_(type), mean_(mean), spread_(spread) {
  if (is_plain(type)) return;
  HEARTH_CHECK(mean == 0);
  if (type == TensorType::kMXFP4) {
    // Scales are powers of two: a mixture of two neighbours has the variance between theirs.
    const double scale = spread / kMxfp4UnitRms;
    const double exponent = std::clamp(std::floor(std::log2(scale)), -127.0, 125.0);
    const double excess = std::clamp(scale / std::exp2(exponent), 1.0, 2.0);
    exponent_ = static_cast<uint8_t>(exponent + 128);
    larger_exponents_ = static_cast<uint32_t>(std::lround((excess * excess - 1) / 3 * 256));
    return;
  }
  const ScaleFields& fields = scale_fields(type);
  const float scale = spread / fields.unit_rms;
  scale_offset_ = fields.scale_offset;
  minimum_offset_ = fields.minimum_offset;
  scale_ = float_to_half(scale);
  minimum_ = float_to_half(scale * fields.minimum);
}

void RandomBlocks::fill(const RandomWords& words, int64_t count, unsigned char* out) const {
  if (is_plain(type_)) return fill_plain(words, count, out);
  const TypeInfo& info = type_info(type_);
  const int64_t bytes = row_bytes(type_, count);
  words.copy(bytes, out);
  if (type_ == TensorType::kMXFP4) {
    for (int64_t at = 0; at < bytes; at += info.block_bytes) set_mxfp4_scale(out + at);
    return;
  }
  for (int64_t at = 0; at < bytes; at += info.block_bytes) {
    tidy_codes(type_, out + at);
    set_scales(out + at);
  }
}

void RandomBlocks::fill_plain(const RandomWords& words, int64_t count, unsigned char* out) const {
  for (int64_t i = 0; i < count; ++i) {
    const float value = mean_ + spread_ * words.normal(static_cast<uint64_t>(i));
    if (type_ == TensorType::kF32) {
      std::memcpy(out + 4 * i, &value, 4);
    } else {
      put_half(out + 2 * i,
               type_ == TensorType::kF16 ? float_to_half(value) : float_to_bfloat16(value));
    }
  }
}

void RandomBlocks::set_mxfp4_scale(unsigned char* block) const {
  block[0] = static_cast<unsigned char>(exponent_ + (block[0] < larger_exponents_ ? 1 : 0));
}

void RandomBlocks::set_scales(unsigned char* block) const {
  put_half(block + scale_offset_, scale_);
  if (minimum_offset_ >= 0) put_half(block + minimum_offset_, minimum_);
}

}  // namespace hearth
