// The header of one GGUF file: parsed from bytes, every claim checked against the bytes that are
// there.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/tensor_dir.h"

namespace hearth {

struct GgufHeader {
  uint32_t version = 0;
  decltype(TensorDir::metadata) metadata;
  std::vector<TensorEntry>
      tensors;            // in the order of the header; `file` is 0, `data` points into the bytes
  bool complete = false;  // no problem was found
};

// Parses a whole file of version 2 or 3. What is wrong with it goes to `problems`, each line opened
// with `prefix`; the header then holds what could be read. Memory and time are bounded by the size
// of a sensible header, not by what the file claims.
GgufHeader parse_gguf_header(std::span<const unsigned char> file, const std::string& prefix,
                             Problems& problems);

}  // namespace hearth
