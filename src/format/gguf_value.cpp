#include "format/gguf_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace hearth {
namespace {

constexpr size_t kNameBytesMax = 65535;
constexpr size_t kQuotedBytesMax = 80;
constexpr int kArrayDepthMax = 4;

// Value types as the container numbers them.
enum : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
  kTypes = 13,
};

// Bytes of a value of each type; the least for strings (a length) and arrays (a type and a count).
constexpr uint64_t kBytesMin[kTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

bool is_float(uint32_t type) { return type == kF32 || type == kF64; }

// Bytes of the UTF-8 sequence at the start of `text`; 0 where there is no valid one.
size_t sequence_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t bytes = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (lead < 0xc2 || lead > 0xf4 || bytes > text.size()) return 0;
  // The second byte's range rules out overlong forms, surrogates and what lies above U+10FFFF.
  const unsigned char least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned char most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < least || byte(1) > most) return 0;
  for (size_t i = 2; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return bytes;
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = sequence_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string in_quotes(std::string_view text) {
  const bool cut = text.size() > kQuotedBytesMax;
  std::string out = "\"";
  while (!text.empty() && out.size() <= kQuotedBytesMax) {
    const size_t bytes = sequence_bytes(text);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    if (bytes == 0 || first < 0x20 || first == 0x7f) {
      out += fmt::format("\\x{:02x}", first);
    } else {
      out += text.substr(0, bytes);
    }
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
  return out + (cut ? "\"..." : "\"");
}

std::string name_problem(std::string_view name) {
  if (name.empty()) return "the name is empty";
  if (name.size() > kNameBytesMax) {
    return fmt::format("the name has {} bytes, more than {}", name.size(), kNameBytesMax);
  }
  if (!is_utf8(name)) return "the name is not UTF-8";
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(name.begin(), name.end(), is_control)) {
    return "the name has a NUL or another control character";
  }
  return "";
}

std::optional<MetadataValue> GgufValueReader::read(uint32_t type, std::string& problem) {
  problem_ = &problem;
  std::optional<MetadataValue> value;
  if (type >= kTypes) {
    problem = fmt::format("the value has type {}, which is none of GGUF's", type);
    reader_.fail();
  } else if (type == kArray) {
    value = read_array();
  } else if (type == kString) {
    value = read_string();
  } else if (is_float(type)) {
    value = read_float(type);
  } else {
    value = read_integer(type);
  }
  if (reader_.failed() || !problem.empty()) return std::nullopt;
  return value;
}

int64_t GgufValueReader::read_integer(uint32_t type) {
  switch (type) {
    case kU8:
      return reader_.read<uint8_t>();
    case kI8:
      return reader_.read<int8_t>();
    case kU16:
      return reader_.read<uint16_t>();
    case kI16:
      return reader_.read<int16_t>();
    case kU32:
      return reader_.read<uint32_t>();
    case kI32:
      return reader_.read<int32_t>();
    case kI64:
      return reader_.read<int64_t>();
    case kBool: {
      const uint8_t value = reader_.read<uint8_t>();
      if (value > 1) *problem_ = fmt::format("a bool is {}, neither 0 nor 1", value);
      return value;
    }
    default:
      break;
  }
  const uint64_t value = reader_.read<uint64_t>();
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    *problem_ = fmt::format("the value {} is too large", value);
    return 0;
  }
  return static_cast<int64_t>(value);
}

double GgufValueReader::read_float(uint32_t type) {
  return type == kF32 ? reader_.read<float>() : reader_.read<double>();
}

std::string GgufValueReader::read_string() {
  const std::string_view text = reader_.read_text();
  if (!is_utf8(text)) *problem_ = fmt::format("the string {} is not UTF-8", in_quotes(text));
  return std::string(text);
}

// The count of an array, checked against the bytes left before any memory is reserved.
uint64_t GgufValueReader::read_count(uint32_t element_type) {
  const uint64_t count = reader_.read<uint64_t>();
  if (reader_.failed()) return 0;
  if (element_type >= kTypes) {
    *problem_ =
        fmt::format("the array's elements have type {}, which is none of GGUF's", element_type);
  } else if (count > reader_.remaining() / kBytesMin[element_type]) {
    *problem_ = fmt::format("an array of {} elements is longer than the {} bytes left", count,
                            reader_.remaining());
  } else if (count > elements_left_) {
    *problem_ = fmt::format("an array of {} elements: the arrays together are too long", count);
  } else {
    elements_left_ -= count;
    return count;
  }
  reader_.fail();
  return 0;
}

std::optional<MetadataValue> GgufValueReader::read_array() {
  const uint32_t type = reader_.read<uint32_t>();
  const uint64_t count = read_count(type);
  const auto read_all = [&]<typename T>(std::vector<T> values, auto read_one) {
    values.reserve(count);
    for (uint64_t i = 0; i < count && !reader_.failed(); ++i) values.push_back(read_one());
    return MetadataValue(std::move(values));
  };
  if (reader_.failed()) return std::nullopt;
  if (type == kString) return read_all(std::vector<std::string>(), [&] { return read_string(); });
  if (is_float(type)) return read_all(std::vector<double>(), [&] { return read_float(type); });
  if (type != kArray) return read_all(std::vector<int64_t>(), [&] { return read_integer(type); });
  for (uint64_t i = 0; i < count && !reader_.failed(); ++i) skip_array(2);
  return std::nullopt;
}

void GgufValueReader::skip_array(int depth) {
  const uint32_t type = reader_.read<uint32_t>();
  const uint64_t count = read_count(type);
  if (reader_.failed()) return;
  if (depth > kArrayDepthMax) {
    *problem_ = fmt::format("arrays are nested more than {} deep", kArrayDepthMax);
    return reader_.fail();
  }
  if (type != kString && type != kArray) return reader_.skip(count * kBytesMin[type]);
  for (uint64_t i = 0; i < count && !reader_.failed(); ++i) {
    if (type == kString) {
      read_string();
    } else {
      skip_array(depth + 1);
    }
  }
}

}  // namespace hearth
