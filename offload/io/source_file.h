// A file that reads come from, opened past the page cache where its file system allows that.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hearth {

class SourceFile {
 public:
  // Throws Error where it can't be opened or read. Where O_DIRECT is refused, reads go through the
  // page cache and a note says so.
  SourceFile(const std::string& path, bool direct, std::vector<std::string>& notes);
  // One that only a fake queue knows, under a number of its own.
  static SourceFile imaginary(int number, uint64_t device) { return {number, device}; }
  ~SourceFile();
  SourceFile(SourceFile&& other) noexcept;
  SourceFile& operator=(SourceFile&&) = delete;

  int descriptor() const { return descriptor_; }
  uint64_t device() const { return device_; }  // files of one device share its speed
  bool is_direct() const { return is_direct_; }
  // Reads go through the page cache from now on, under the same descriptor.
  void leave_direct() noexcept;

 private:
  SourceFile(int number, uint64_t device)
      : descriptor_(number), device_(device), is_imaginary_(true) {}
  void close() noexcept;
  int first_read_error() const;

  int descriptor_ = -1;
  uint64_t device_ = 0;
  bool is_direct_ = false;
  bool is_imaginary_ = false;
};

}  // namespace hearth
