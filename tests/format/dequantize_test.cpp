// Every weight format against golden values, every 16-bit float against its definition.
#include "format/dequantize.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/codebooks.h"
#include "support.h"

using namespace hearth;

namespace {

// The formats of index.tsv in `folder` decode to exactly NAME.f32; returns how many there were.
int check_formats(const std::filesystem::path& folder) {
  std::istringstream index(test::read_text(folder / "index.tsv"));
  int formats = 0;
  for (std::string line; std::getline(index, line); ++formats) {
    const std::string name = line.substr(0, line.find('\t'));
    CAPTURE(name);
    const TypeInfo* info = find_type_by_name(name.c_str());
    REQUIRE(info != nullptr);
    uint32_t id;
    int32_t block_size, block_bytes;
    std::istringstream(line.substr(name.size())) >> id >> block_size >> block_bytes;
    CHECK(static_cast<uint32_t>(info->type) == id);
    CHECK(info->block_size == block_size);
    CHECK(info->block_bytes == block_bytes);

    const auto blocks = test::read_array<unsigned char>(folder / (name + ".bin"));
    const auto expected = test::read_array<float>(folder / (name + ".f32"));
    REQUIRE(static_cast<int64_t>(blocks.size()) ==
            row_bytes(info->type, static_cast<int64_t>(expected.size())));
    std::vector<float> values(expected.size(), -1.0f);
    dequantize(info->type, blocks.data(), static_cast<int64_t>(values.size()), values.data());
    size_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) wrong += values[i] != expected[i];
    CHECK(wrong == 0);
  }
  return formats;
}

uint64_t hash(const void* data, size_t bytes, uint64_t start) {
  const auto* from = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) start = (start ^ from[i]) * 0x100000001b3;
  return start;
}

double half_by_definition(uint16_t half) {
  const int exponent = (half >> 10) & 31, fraction = half & 0x3ff;
  const double sign = half & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace

TEST_CASE("formats decode to the golden values") {
  CHECK(check_formats(test::data("quants")) == 20);
}

TEST_CASE("formats decode to the golden values: all rows") {
  if (!test::has_shared()) return test::skip("the full quantization data is absent");
  CHECK(check_formats(test::shared("data/quants")) == 20);
}

TEST_CASE("codebooks are the formats' own") {
  uint64_t all = 0xcbf29ce484222325;
  all = hash(kIqSigns, sizeof(kIqSigns), all);
  all = hash(kIq2XxsRows, sizeof(kIq2XxsRows), all);
  all = hash(kIq2XsRows, sizeof(kIq2XsRows), all);
  all = hash(kIq2SRows, sizeof(kIq2SRows), all);
  all = hash(kIq3XxsRows, sizeof(kIq3XxsRows), all);
  all = hash(kIq3SRows, sizeof(kIq3SRows), all);
  CHECK(all == 0xdbe41694dfe02093);

  if (!test::has_shared()) return test::skip("codebooks.json is absent");
  const auto json =
      nlohmann::json::parse(test::read_text(test::shared("data/quants/codebooks.json")));
  const auto check_rows = [&](const char* name, const auto* rows, size_t count) {
    REQUIRE(json[name].size() == count);
    for (size_t r = 0; r < count; ++r) {
      for (size_t i = 0; i < sizeof(rows[r]); ++i) {
        CHECK(((rows[r] >> (8 * i)) & 255) == json[name][r][i].get<unsigned>());
      }
    }
  };
  check_rows("iq2_xxs", kIq2XxsRows, 256);
  check_rows("iq2_xs", kIq2XsRows, 512);
  check_rows("iq2_s", kIq2SRows, 1024);
  check_rows("iq3_xxs", kIq3XxsRows, 256);
  check_rows("iq3_s", kIq3SRows, 512);
  for (size_t i = 0; i < 128; ++i) CHECK(kIqSigns[i] == json["signs"][i].get<int>());
}

TEST_CASE("F32 and I32 are taken as they are") {
  const float floats[] = {1.5f, -0.0f, 1e-42f, 3e38f};
  float out[4];
  dequantize(TensorType::kF32, reinterpret_cast<const unsigned char*>(floats), 4, out);
  CHECK(std::memcmp(out, floats, sizeof(out)) == 0);
  const int32_t integers[] = {0, -7, 16777216, INT32_MIN};
  dequantize(TensorType::kI32, reinterpret_cast<const unsigned char*>(integers), 4, out);
  for (int i = 0; i < 4; ++i) CHECK(out[i] == static_cast<float>(integers[i]));
}

TEST_CASE("MXFP4 scales: subnormal at the low end, NaN at 255") {
  unsigned char block[17] = {};
  for (int i = 0; i < 16; ++i) block[1 + i] = static_cast<unsigned char>(i);
  const double codes[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};
  float values[32];
  for (int e = 0; e < 255; ++e) {
    block[0] = static_cast<unsigned char>(e);
    dequantize(TensorType::kMXFP4, block, 32, values);
    for (int i = 0; i < 16; ++i) {
      CHECK(values[i] == static_cast<float>(std::ldexp(codes[i], e - 127)));
    }
    CHECK(values[1] > 0);
  }
  block[0] = 255;
  dequantize(TensorType::kMXFP4, block, 32, values);
  for (const float value : values) CHECK(std::isnan(value));
}

TEST_CASE("every half and bfloat16 code becomes its value and comes back") {
  int wrong = 0;
  for (uint32_t code = 0; code < 65536; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const float half = half_to_float(bits);
    const double expected = half_by_definition(bits);
    const float bfloat = bfloat16_to_float(bits);
    if (std::isnan(expected)) {
      wrong += !std::isnan(half) || float_to_half(half) != (bits | 0x200);
    } else {
      wrong += half != expected || std::signbit(half) != std::signbit(expected) ||
               float_to_half(half) != bits;
    }
    wrong += std::bit_cast<uint32_t>(bfloat) != code << 16;
    wrong += float_to_bfloat16(bfloat) != (std::isnan(bfloat) ? bits | 0x40 : bits);
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats round to the nearest 16-bit float, ties to even") {
  int wrong = 0;
  for (uint32_t code = 0; code < 0x7c00; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const double here = half_by_definition(bits);
    // The step past the largest finite half would be 65536, were it a number.
    const double next =
        code + 1 == 0x7c00 ? 65536 : half_by_definition(static_cast<uint16_t>(code + 1));
    const auto middle = static_cast<float>((here + next) / 2);  // exact in a float
    const auto even = static_cast<uint16_t>(code + (code & 1));
    wrong += float_to_half(middle) != even;
    wrong += float_to_half(-middle) != (even | 0x8000);
    wrong += float_to_half(std::nextafter(middle, 0.0f)) != bits;
    wrong += float_to_half(std::nextafter(middle, 1e6f)) != code + 1;
  }
  for (uint32_t code = 0; code < 0x7f80; ++code) {
    const float middle = std::bit_cast<float>(code << 16 | 0x8000);
    wrong += float_to_bfloat16(middle) != code + (code & 1);
    wrong += float_to_bfloat16(std::bit_cast<float>(code << 16 | 0x7fff)) != code;
    wrong += float_to_bfloat16(std::bit_cast<float>(code << 16 | 0x8001)) != code + 1;
  }
  CHECK(wrong == 0);
  CHECK(float_to_half(1e30f) == 0x7c00);
  CHECK(float_to_half(-INFINITY) == 0xfc00);
  CHECK(float_to_half(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(float_to_bfloat16(std::numeric_limits<float>::max()) == 0x7f80);
}

TEST_CASE("F8_E4M3: every code, scaled by a power of two") {
  unsigned char block[129];
  float values[128];
  for (const int exponent : {0, 1, 120, 127, 254}) {
    block[0] = static_cast<unsigned char>(exponent);
    for (const int sign : {0, 1}) {
      for (int code = 0; code < 128; ++code) {
        block[1 + code] = static_cast<unsigned char>(128 * sign + code);
      }
      dequantize(TensorType::kF8_E4M3, block, 128, values);
      const double scale = std::ldexp(sign == 0 ? 1.0 : -1.0, exponent - 127);
      CHECK(values[0] == 0);
      CHECK(values[1] == static_cast<float>(scale / 512));      // the least subnormal
      CHECK(values[7] == static_cast<float>(scale * 7 / 512));  // the largest
      CHECK(values[8] == static_cast<float>(scale / 64));       // the least normal
      CHECK(values[0x38] == static_cast<float>(scale));         // one
      CHECK(values[0x7e] == static_cast<float>(scale * 448));   // the largest value
      CHECK(std::isnan(values[0x7f]));
    }
  }
  CHECK(find_type(static_cast<uint32_t>(TensorType::kF8_E4M3)) == nullptr);  // in no GGUF file
}
