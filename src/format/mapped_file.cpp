#include "format/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace hearth {
namespace {

std::string reason(int error_number) { return std::generic_category().message(error_number); }

// Closes the descriptor; a mapping stays valid without it.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

[[noreturn]] void throw_open_error(const std::string& path, int error_number) {
  if (error_number == ENOENT || error_number == ENOTDIR) {
    throw Error("there is no such file", path, "Check the path");
  }
  if (error_number == EACCES || error_number == EPERM) {
    throw Error("no permission to read the file", path, "Change its access rights");
  }
  throw Error("cannot open the file: " + reason(error_number), path, "");
}

size_t checked_size(const struct stat& status, const std::string& path) {
  if (S_ISDIR(status.st_mode)) {
    throw Error("this is a folder, not a file", path, "Name a file in it");
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error("not a regular file, so it cannot be mapped", path, "Copy it to a file first");
  }
  if (status.st_size == 0) throw Error("the file is empty", path, "Download or copy it again");
  return static_cast<size_t>(status.st_size);
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  const std::string name = path_.string();
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const Descriptor file{::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) throw_open_error(name, errno);
  struct stat status;
  if (::fstat(file.fd, &status) != 0) {
    throw Error("cannot read its size: " + reason(errno), name, "");
  }
  size_ = checked_size(status, name);
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (mapping == MAP_FAILED) throw Error("cannot map the file: " + reason(errno), name, "");
  data_ = static_cast<unsigned char*>(mapping);
}

MappedFile::~MappedFile() { ::munmap(data_, size_); }

}  // namespace hearth
