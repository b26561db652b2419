// One function a format: decodes one block. Products are formed in the order the formats define
// (block scale times group scale first), so that results agree to the last bit.
#include "format/dequantize.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/codebooks.h"

namespace hearth {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF blocks are little endian");

using Bytes = const unsigned char*;

template <typename T>
T load(Bytes bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

float load_half(Bytes bytes) { return half_to_float(load<uint16_t>(bytes)); }

int bit(uint32_t bits, int i) { return (bits >> i) & 1; }
int low(int byte) { return byte & 15; }
int high(int byte) { return byte >> 4; }

void f32(Bytes b, float* y) { y[0] = load<float>(b); }
void f16(Bytes b, float* y) { y[0] = load_half(b); }
void bf16(Bytes b, float* y) { y[0] = bfloat16_to_float(load<uint16_t>(b)); }
void i32(Bytes b, float* y) { y[0] = static_cast<float>(load<int32_t>(b)); }

// Blocks of 32: the low nibbles of 16 bytes are values 0 .. 15, the high ones 16 .. 31.

void q4_0(Bytes b, float* y) {
  const float d = load_half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(low(b[2 + i]) - 8) * d;
    y[i + 16] = static_cast<float>(high(b[2 + i]) - 8) * d;
  }
}

void q4_1(Bytes b, float* y) {
  const float d = load_half(b), m = load_half(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(low(b[4 + i])) * d + m;
    y[i + 16] = static_cast<float>(high(b[4 + i])) * d + m;
  }
}

void q5_0(Bytes b, float* y) {
  const float d = load_half(b);
  const uint32_t fifth = load<uint32_t>(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(low(b[6 + i]) + 16 * bit(fifth, i) - 16) * d;
    y[i + 16] = static_cast<float>(high(b[6 + i]) + 16 * bit(fifth, i + 16) - 16) * d;
  }
}

void q5_1(Bytes b, float* y) {
  const float d = load_half(b), m = load_half(b + 2);
  const uint32_t fifth = load<uint32_t>(b + 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = static_cast<float>(low(b[8 + i]) + 16 * bit(fifth, i)) * d + m;
    y[i + 16] = static_cast<float>(high(b[8 + i]) + 16 * bit(fifth, i + 16)) * d + m;
  }
}

void q8_0(Bytes b, float* y) {
  const float d = load_half(b);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<int8_t>(b[2 + i])) * d;
}

void nibbles_by_table(Bytes nibbles, const int8_t* table, float scale, float* y) {
  for (int i = 0; i < 16; ++i) {
    y[i] = scale * static_cast<float>(table[low(nibbles[i])]);
    y[i + 16] = scale * static_cast<float>(table[high(nibbles[i])]);
  }
}

void iq4_nl(Bytes b, float* y) { nibbles_by_table(b + 2, kIq4Values, load_half(b), y); }

// 2^(e - 128), subnormal for e < 2; NaN for 255.
float mxfp4_scale(uint32_t e) {
  if (e == 255) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

void mxfp4(Bytes b, float* y) { nibbles_by_table(b + 1, kMxfp4Values, mxfp4_scale(b[0]), y); }

// Eight-bit floats, scaled by 2^(e - 127). E4M3 has no infinity, and NaN only as its largest code.
void f8_e4m3(Bytes b, float* y) {
  const float scale = std::bit_cast<float>(b[0] == 0 ? 0x00400000u : uint32_t{b[0]} << 23);
  for (int i = 0; i < 128; ++i) {
    const uint32_t code = b[1 + i], exponent = (code >> 3) & 15, fraction = code & 7;
    const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                          : std::ldexp(static_cast<float>(8 + fraction),
                                                       static_cast<int>(exponent) - 10);
    const bool is_nan = (code & 0x7f) == 0x7f;
    y[i] = is_nan ? std::numeric_limits<float>::quiet_NaN()
                  : (code & 0x80 ? -1.0f : 1.0f) * magnitude * scale;
  }
}

// K formats: blocks of 256 in groups of 16 or 32, each group with a scale of its own.

void q2_k(Bytes b, float* y) {
  const Bytes scales = b, codes = b + 16;
  const float d = load_half(b + 80), m = load_half(b + 82);
  for (int g = 0; g < 16; ++g) {
    const Bytes group = codes + 32 * (g / 8) + 16 * (g % 2);
    const int shift = 2 * (g % 8 / 2);
    const float scale = d * static_cast<float>(low(scales[g]));
    const float minimum = m * static_cast<float>(high(scales[g]));
    for (int i = 0; i < 16; ++i) {
      y[16 * g + i] = scale * static_cast<float>((group[i] >> shift) & 3) - minimum;
    }
  }
}

void q3_k(Bytes b, float* y) {
  const Bytes high_bits = b, codes = b + 32, s = b + 96;
  const float d = load_half(b + 108);
  for (int g = 0; g < 16; ++g) {
    const Bytes group = codes + 32 * (g / 8) + 16 * (g % 2);
    const Bytes group_high = high_bits + 16 * (g % 2);
    const int pair = g % 8 / 2;
    const int code =
        ((s[g % 8] >> (4 * (g / 8))) & 15) + 16 * ((s[8 + g % 4] >> (2 * (g / 4))) & 3);
    const float scale = d * static_cast<float>(code - 32);
    for (int i = 0; i < 16; ++i) {
      const int q = ((group[i] >> (2 * pair)) & 3) - 4 + 4 * bit(group_high[i], 4 * (g / 8) + pair);
      y[16 * g + i] = scale * static_cast<float>(q);
    }
  }
}

struct GroupScale {
  int scale;
  int minimum;
};

// Group g's two six-bit scales of Q4_K and Q5_K.
GroupScale k_scale(Bytes s, int g) {
  if (g < 4) return {s[g] & 63, s[g + 4] & 63};
  return {low(s[g + 4]) + 16 * (s[g - 4] >> 6), high(s[g + 4]) + 16 * (s[g] >> 6)};
}

void q4_k(Bytes b, float* y) {
  const float d = load_half(b), m = load_half(b + 2);
  for (int g = 0; g < 8; ++g) {
    const Bytes group = b + 16 + 32 * (g / 2);
    const GroupScale s = k_scale(b + 4, g);
    const float scale = d * static_cast<float>(s.scale),
                minimum = m * static_cast<float>(s.minimum);
    for (int i = 0; i < 32; ++i) {
      const int q = g % 2 == 0 ? low(group[i]) : high(group[i]);
      y[32 * g + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void q5_k(Bytes b, float* y) {
  const float d = load_half(b), m = load_half(b + 2);
  const Bytes fifth = b + 16;
  for (int g = 0; g < 8; ++g) {
    const Bytes group = b + 48 + 32 * (g / 2);
    const GroupScale s = k_scale(b + 4, g);
    const float scale = d * static_cast<float>(s.scale),
                minimum = m * static_cast<float>(s.minimum);
    for (int i = 0; i < 32; ++i) {
      const int q = (g % 2 == 0 ? low(group[i]) : high(group[i])) + 16 * bit(fifth[i], g);
      y[32 * g + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void q6_k(Bytes b, float* y) {
  const Bytes scales = b + 192;
  const float d = load_half(b + 208);
  for (int quarter = 0; quarter < 8; ++quarter) {
    const int h = quarter / 4, k = quarter % 4;
    const Bytes lows = b + 64 * h + 32 * (k % 2);
    const Bytes highs = b + 128 + 32 * h;
    for (int i = 0; i < 32; ++i) {
      const int q = (k < 2 ? low(lows[i]) : high(lows[i])) + 16 * ((highs[i] >> (2 * k)) & 3) - 32;
      const int scale = static_cast<int8_t>(scales[8 * h + 2 * k + i / 16]);
      y[32 * quarter + i] = d * static_cast<float>(scale) * static_cast<float>(q);
    }
  }
}

void iq4_xs(Bytes b, float* y) {
  const float d = load_half(b);
  const uint32_t high_bits = load<uint16_t>(b + 2);
  const Bytes low_bits = b + 4, codes = b + 8;
  for (int g = 0; g < 8; ++g) {
    const int code = ((low_bits[g / 2] >> (4 * (g % 2))) & 15) + 16 * ((high_bits >> (2 * g)) & 3);
    const float scale = d * static_cast<float>(code - 32);
    nibbles_by_table(codes + 16 * g, kIq4Values, scale, y + 32 * g);
  }
}

// IQ2 and IQ3: rows of magnitudes from a codebook, signs apart; 8 groups of 32.

void signed_row(uint64_t row, int width, uint32_t signs, float scale, float* y) {
  for (int i = 0; i < width; ++i) {
    const float magnitude = static_cast<float>((row >> (8 * i)) & 255);
    y[i] = scale * magnitude * (bit(signs, i) ? -1.0f : 1.0f);
  }
}

float iq2_scale(float d, int code) { return d * (0.5f + static_cast<float>(code)) * 0.25f; }

void iq2_xxs(Bytes b, float* y) {
  const float d = load_half(b);
  for (int g = 0; g < 8; ++g) {
    const Bytes indices = b + 2 + 8 * g;
    const uint32_t packed = load<uint32_t>(indices + 4);
    const float scale = iq2_scale(d, static_cast<int>(packed >> 28));
    for (int j = 0; j < 4; ++j) {
      const uint32_t signs = kIqSigns[(packed >> (7 * j)) & 127];
      signed_row(kIq2XxsRows[indices[j]], 8, signs, scale, y + 32 * g + 8 * j);
    }
  }
}

void iq2_xs(Bytes b, float* y) {
  const float d = load_half(b);
  const Bytes scales = b + 66;
  for (int r = 0; r < 32; ++r) {
    const uint32_t q = load<uint16_t>(b + 2 + 2 * r);
    const int code = r % 4 < 2 ? low(scales[r / 4]) : high(scales[r / 4]);
    signed_row(kIq2XsRows[q & 511], 8, kIqSigns[q >> 9], iq2_scale(d, code), y + 8 * r);
  }
}

void iq2_s(Bytes b, float* y) {
  const float d = load_half(b);
  const Bytes indices = b + 2, signs = b + 34, high_bits = b + 66, scales = b + 74;
  for (int r = 0; r < 32; ++r) {
    const int index = indices[r] + 256 * ((high_bits[r / 4] >> (2 * (r % 4))) & 3);
    const int code = r % 4 < 2 ? low(scales[r / 4]) : high(scales[r / 4]);
    signed_row(kIq2SRows[index], 8, signs[r], iq2_scale(d, code), y + 8 * r);
  }
}

void iq3_xxs(Bytes b, float* y) {
  const float d = load_half(b);
  const Bytes indices = b + 2, packed_words = b + 66;
  for (int g = 0; g < 8; ++g) {
    const uint32_t packed = load<uint32_t>(packed_words + 4 * g);
    const float scale = d * (0.5f + static_cast<float>(packed >> 28)) * 0.5f;
    for (int r = 0; r < 8; ++r) {
      const uint32_t signs = kIqSigns[(packed >> (7 * (r / 2))) & 127] >> (4 * (r % 2));
      signed_row(kIq3XxsRows[indices[8 * g + r]], 4, signs, scale, y + 32 * g + 4 * r);
    }
  }
}

void iq3_s(Bytes b, float* y) {
  const float d = load_half(b);
  const Bytes indices = b + 2, high_bits = b + 66, signs = b + 74, scales = b + 106;
  for (int g = 0; g < 8; ++g) {
    const int code = g % 2 == 0 ? low(scales[g / 2]) : high(scales[g / 2]);
    const float scale = d * static_cast<float>(1 + 2 * code);
    for (int r = 0; r < 8; ++r) {
      const int index = indices[8 * g + r] + 256 * bit(high_bits[g], r);
      const uint32_t row_signs = signs[4 * g + r / 2] >> (4 * (r % 2));
      signed_row(kIq3SRows[index], 4, row_signs, scale, y + 32 * g + 4 * r);
    }
  }
}

using BlockDecoder = void (*)(Bytes, float*);

BlockDecoder decoder(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return f32;
    case TensorType::kF16:
      return f16;
    case TensorType::kQ4_0:
      return q4_0;
    case TensorType::kQ4_1:
      return q4_1;
    case TensorType::kQ5_0:
      return q5_0;
    case TensorType::kQ5_1:
      return q5_1;
    case TensorType::kQ8_0:
      return q8_0;
    case TensorType::kQ2_K:
      return q2_k;
    case TensorType::kQ3_K:
      return q3_k;
    case TensorType::kQ4_K:
      return q4_k;
    case TensorType::kQ5_K:
      return q5_k;
    case TensorType::kQ6_K:
      return q6_k;
    case TensorType::kIQ2_XXS:
      return iq2_xxs;
    case TensorType::kIQ2_XS:
      return iq2_xs;
    case TensorType::kIQ3_XXS:
      return iq3_xxs;
    case TensorType::kIQ4_NL:
      return iq4_nl;
    case TensorType::kIQ3_S:
      return iq3_s;
    case TensorType::kIQ2_S:
      return iq2_s;
    case TensorType::kIQ4_XS:
      return iq4_xs;
    case TensorType::kI32:
      return i32;
    case TensorType::kBF16:
      return bf16;
    case TensorType::kMXFP4:
      return mxfp4;
    case TensorType::kF8_E4M3:
      return f8_e4m3;
  }
  return nullptr;
}

}  // namespace

void dequantize(TensorType type, const unsigned char* blocks, int64_t count, float* out) {
  const TypeInfo& info = type_info(type);
  const BlockDecoder decode = decoder(type);
  HEARTH_CHECK(decode != nullptr && count % info.block_size == 0);
  for (int64_t i = 0; i < count; i += info.block_size, blocks += info.block_bytes) {
    decode(blocks, out + i);
  }
}

}  // namespace hearth
