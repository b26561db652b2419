// A whole file as read-only memory: pages come from disk on first touch and the kernel may drop
// them again. The file must not shrink while it is mapped: touching what was cut off ends the
// program with SIGBUS.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace hearth {

class MappedFile {
 public:
  // Throws Error unless `path` is a regular file with at least one byte that may be read.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const unsigned char> bytes() const { return {data_, size_}; }

 private:
  std::filesystem::path path_;
  unsigned char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace hearth
