#include "offload/io/source_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/buffer.h"
#include "base/error.h"

namespace hearth {
namespace {

constexpr size_t kBlockBytes = 4096;

Error read_error(const std::string& path, int error) {
  return {"it can't be read: " + std::generic_category().message(error), path,
          "Check that the file is there, and the disk it lies on"};
}

int open_for_reads(const std::string& path, int flags) {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
}

}  // namespace

SourceFile::SourceFile(const std::string& path, bool direct, std::vector<std::string>& notes) {
  if (direct) descriptor_ = open_for_reads(path, O_DIRECT);
  is_direct_ = descriptor_ >= 0;
  if (!is_direct_) descriptor_ = open_for_reads(path, 0);
  if (descriptor_ < 0) throw read_error(path, errno);
  int error = first_read_error();
  if (error == EINVAL && is_direct_) {
    leave_direct();
    error = first_read_error();
  }
  struct stat status {};
  if (error == 0 && ::fstat(descriptor_, &status) != 0) error = errno;
  if (error != 0) {
    close();
    throw read_error(path, error);
  }
  device_ = status.st_dev;
  if (direct && !is_direct_) {
    notes.push_back(path +
                    ": the file system refuses reads past the page cache (O_DIRECT); "
                    "they go through it, which is slower and takes memory");
  }
}

SourceFile::~SourceFile() { close(); }

SourceFile::SourceFile(SourceFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      device_(other.device_),
      is_direct_(other.is_direct_),
      is_imaginary_(other.is_imaginary_) {}

void SourceFile::leave_direct() noexcept {
  is_direct_ = false;
  if (!is_imaginary_) ::fcntl(descriptor_, F_SETFL, 0);
}

void SourceFile::close() noexcept {
  if (descriptor_ >= 0 && !is_imaginary_) ::close(descriptor_);
  descriptor_ = -1;
}

// Some file systems let O_DIRECT open and refuse it when read.
int SourceFile::first_read_error() const {
  const Buffer block(kBlockBytes);
  for (;;) {
    if (::pread(descriptor_, block.data(), kBlockBytes, 0) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

}  // namespace hearth
