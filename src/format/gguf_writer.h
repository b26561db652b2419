// Writes a GGUF file front to back without holding it: keys, then the list of tensors, then their
// bytes. Used to make models for tests and for speed; what it writes, other engines load too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/tensor_type.h"

namespace hearth {

// A value is stored in the width of its C++ type: other engines expect uint32_t for counts and
// sizes.
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                               std::string, uint64_t, int64_t, double, std::vector<int32_t>,
                               std::vector<uint32_t>, std::vector<float>, std::vector<std::string>>;

// Call add for every key, add_tensor for every tensor, begin_data, then write or skip for the
// tensors in the order they were added, then finish. An object that goes before finish has ended
// removes its file.
class GgufWriter {
 public:
  // Throws Error where the file cannot be created; one that is there is overwritten.
  explicit GgufWriter(std::filesystem::path path);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  void add(const std::string& key, const GgufValue& value);
  // `dims` fastest first; dims[0] is a multiple of the block.
  void add_tensor(const std::string& name, TensorType type, const std::vector<int64_t>& dims);

  // The rest throws Error when the disk is full or fails.
  void begin_data();
  // The next bytes of the current tensor; once it has them all, the next one is current. Large
  // pieces are faster.
  void write(std::span<const unsigned char> bytes);
  // Leaves the whole current tensor as a hole of zeros that takes no space on disk.
  void skip();
  void finish();

  uint64_t tensor_bytes(size_t tensor) const { return tensors_[tensor].bytes; }
  // The size that the file has, or will have, with its holes; known after begin_data.
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  struct Tensor {
    uint64_t offset;  // in the file, after begin_data; in the data section before
    uint64_t bytes;
  };

  void write_at(uint64_t offset, const void* data, size_t bytes);
  [[noreturn]] void throw_failed(const char* step, int error_number);

  std::filesystem::path path_;
  int fd_ = -1;
  std::string keys_;   // encoded
  std::string infos_;  // encoded
  uint64_t key_count_ = 0;
  std::vector<Tensor> tensors_;
  uint64_t data_bytes_ = 0;  // with the padding after the last tensor
  uint64_t file_bytes_ = 0;
  size_t current_ = 0;    // tensor to be written next
  uint64_t written_ = 0;  // bytes of it
  bool in_data_ = false;
  bool finished_ = false;
};

}  // namespace hearth
