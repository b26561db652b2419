// Metadata values of GGUF headers and the strings in them: untrusted bytes to checked values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "format/byte_reader.h"
#include "format/tensor_dir.h"

namespace hearth {

// Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

// The text in quotes for a message: control characters and broken UTF-8 escaped, cut where it is
// long.
std::string in_quotes(std::string_view text);

// What is wrong with the name of a key or a tensor; empty where nothing is.
std::string name_problem(std::string_view name);

// Reads the values of one header; the elements of all its arrays together are bounded.
class GgufValueReader {
 public:
  explicit GgufValueReader(ByteReader& reader) : reader_(reader) {}

  // The value of GGUF type `type`. Nothing for arrays of arrays, which no key of ours has, and
  // where `problem` is set. The reader fails where the end of the value cannot be found.
  std::optional<MetadataValue> read(uint32_t type, std::string& problem);

 private:
  int64_t read_integer(uint32_t type);
  double read_float(uint32_t type);
  std::string read_string();
  std::optional<MetadataValue> read_array();
  void skip_array(int depth);
  uint64_t read_count(uint32_t element_type);

  ByteReader& reader_;
  std::string* problem_ = nullptr;
  uint64_t elements_left_ = uint64_t{1} << 22;
};

}  // namespace hearth
