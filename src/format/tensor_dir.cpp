#include "format/tensor_dir.h"

#include <algorithm>

namespace hearth {
namespace {

template <typename T>
const T* value_of(const TensorDir& dir, std::string_view key) {
  const auto found = dir.metadata.find(key);
  return found == dir.metadata.end() ? nullptr : std::get_if<T>(&found->second);
}

}  // namespace

const TensorEntry* TensorDir::find(std::string_view name) const {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

std::optional<int64_t> TensorDir::integer(std::string_view key) const {
  const int64_t* value = value_of<int64_t>(*this, key);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<double> TensorDir::number(std::string_view key) const {
  if (const auto value = integer(key)) return static_cast<double>(*value);
  const double* value = value_of<double>(*this, key);
  return value ? std::optional(*value) : std::nullopt;
}

const std::string* TensorDir::text(std::string_view key) const {
  return value_of<std::string>(*this, key);
}

const std::filesystem::path& largest_file(const TensorDir& dir) {
  std::vector<uint64_t> bytes(dir.files.size());
  for (const auto& [name, tensor] : dir.tensors) bytes[tensor.file] += tensor.bytes;
  return dir.files[std::ranges::max_element(bytes) - bytes.begin()].path;
}

}  // namespace hearth
