// GGUF files made by hand, byte by byte, so that tests can say anything in them, also what no
// writer would.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "support.h"

namespace hearth::test {

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}
inline std::string raw_text(const std::string& text) { return raw<uint64_t>(text.size()) + text; }
inline std::string raw_array(uint32_t type, uint64_t count, const std::string& elements) {
  return raw(type) + raw(count) + elements;
}

struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> key_claim;     // else the number of keys
  std::optional<uint64_t> tensor_claim;  // else the number of tensors
  uint64_t alignment = 32;
  uint64_t data_bytes = 0;

  GgufBytes& key(const std::string& name, uint32_t type, const std::string& value) {
    keys_ += raw_text(name) + raw(type) + value;
    ++key_count_;
    return *this;
  }
  GgufBytes& tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                    uint64_t offset) {
    infos_ += raw_text(name) + raw(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) infos_ += raw(dim);
    infos_ += raw(type) + raw(offset);
    ++tensor_count_;
    return *this;
  }
  std::string bytes() const {
    std::string out = magic + raw(version) + raw(tensor_claim.value_or(tensor_count_)) +
                      raw(key_claim.value_or(key_count_)) + keys_ + infos_;
    if (data_bytes == 0) return out;
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    for (uint64_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i * 7 + 1);
    return out;
  }

 private:
  std::string keys_, infos_;
  uint64_t key_count_ = 0, tensor_count_ = 0;
};

// Two tensors of 24 and 34 bytes with padding between them, some keys of every shape.
inline GgufBytes small_gguf() {
  GgufBytes file;
  file.key("general.architecture", 8, raw_text("deepseek4"))
      .key("n", 4, raw<uint32_t>(7))
      .key("ratios", 9, raw_array(5, 3, raw<int32_t>(0) + raw<int32_t>(4) + raw<int32_t>(128)))
      .key("tokens", 9, raw_array(8, 2, raw_text("a") + raw_text("\xc4\xa0the")))
      .tensor("a.weight", {3, 2}, 0, 0)
      .tensor("b.weight", {32}, 8, 32);
  file.data_bytes = 32 + 34;
  return file;
}

inline std::filesystem::path write_file(const std::filesystem::path& path,
                                        const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  return path;
}

// What the Error of opening `path` says; empty where it opens.
inline std::string open_error(const std::filesystem::path& path) {
  try {
    open_gguf(path);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace hearth::test
