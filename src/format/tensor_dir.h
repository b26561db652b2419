// A model file as a directory: metadata by key, tensors by name, bytes mapped into memory and read
// on first use.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/tensor_type.h"

namespace hearth {

class MappedFile;

struct TensorEntry {
  std::string name;
  TensorType type;
  std::vector<int64_t> dims;  // fastest (contiguous) first, as in the file; 1 to 4 of them
  int file;                   // index into TensorDir::files
  uint64_t offset;            // of the first byte, from the start of that file
  uint64_t bytes;
  const unsigned char* data;  // mapped, or where they were read to
  bool interleaved = false;   // as Matrix::interleaved, each matrix of a stack
};

// Integers of every width become int64 (u64 beyond its range is refused), arrays of integers
// vectors of int64, of floats vectors of double; bools count as integers.
using MetadataValue = std::variant<int64_t, double, std::string, std::vector<int64_t>,
                                   std::vector<double>, std::vector<std::string>>;

struct ModelFile {
  std::filesystem::path path;
  std::shared_ptr<MappedFile> mapping;
  uint32_t version = 0;  // of the container
};

class TensorDir {
 public:
  std::vector<ModelFile> files;
  std::map<std::string, MetadataValue, std::less<>> metadata;
  std::map<std::string, TensorEntry, std::less<>> tensors;

  // Null where there is no such tensor.
  const TensorEntry* find(std::string_view name) const;
  // The value where the key exists with that kind of value (an integer serves as a float), else
  // nothing.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  const std::string* text(std::string_view key) const;
};

// The file of a model whose tensors have the most bytes; there must be one.
const std::filesystem::path& largest_file(const TensorDir& dir);

}  // namespace hearth
