// A file for measuring, read and written past the page cache. It has no name, so nothing of it
// stays.
#pragma once

#include <cstdint>
#include <filesystem>

namespace hearth {

class ScratchFile {
 public:
  static constexpr int64_t kWriteBytes = 4 << 20;

  // Not all file systems know files without a name: there, the name goes as soon as it is made.
  enum class Naming { kNone, kUnlinked };

  // Throws Error where the folder is none, can't be written to or refuses O_DIRECT.
  explicit ScratchFile(const std::filesystem::path& folder, Naming naming = Naming::kNone);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  // Writes random bytes, whole units of kWriteBytes, until there are `bytes_max` or `seconds` have
  // passed, but at least `bytes_min`. Throws Error.
  void fill(int64_t bytes_min, int64_t bytes_max, double seconds);

  int descriptor() const { return descriptor_; }
  int64_t bytes() const { return bytes_; }
  int64_t free_bytes() const;  // of its file system, for this user

 private:
  [[noreturn]] void fail(const char* what, int error_number) const;

  const std::filesystem::path folder_;
  int descriptor_ = -1;
  int64_t bytes_ = 0;
};

}  // namespace hearth
