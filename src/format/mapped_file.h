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
  // What the file takes on its disk: less than its size where it has holes.
  uint64_t stored_bytes() const { return stored_bytes_; }

  // Reads a range's pages into memory now, which is faster than on first touch; never fails.
  void populate(uint64_t offset, uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  unsigned char* data_ = nullptr;
  size_t size_ = 0;
  uint64_t stored_bytes_ = 0;
};

}  // namespace hearth
