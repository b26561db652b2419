#include "offload/io/scratch_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <random>
#include <string>
#include <system_error>

#include "base/buffer.h"
#include "base/error.h"

namespace hearth {
namespace {

// A file without a name from the start; -1 with errno.
int open_nameless(const std::filesystem::path& folder) {
  return ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

// A file whose name goes at once; -1 with errno.
int open_unlinked(const std::filesystem::path& folder) {
  std::string name = folder / "hearth-scratch-XXXXXX";
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor >= 0) ::unlink(name.c_str());
  return descriptor;
}

}  // namespace

ScratchFile::ScratchFile(const std::filesystem::path& folder, Naming naming) : folder_(folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw Error("is no folder", folder.string(), "Name a folder on the disk to measure");
  }
  if (naming == Naming::kNone) descriptor_ = open_nameless(folder);
  const bool is_unknown = errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL;
  if (naming == Naming::kUnlinked || (descriptor_ < 0 && is_unknown)) {
    descriptor_ = open_unlinked(folder);
  }
  if (descriptor_ < 0) fail("a scratch file can't be written there", errno);
  if (::fcntl(descriptor_, F_SETFL, O_DIRECT) != 0) {
    const int refusal = errno;
    ::close(descriptor_);
    fail("its file system refuses O_DIRECT, reads past the page cache", refusal);
  }
}

ScratchFile::~ScratchFile() { ::close(descriptor_); }

void ScratchFile::fail(const char* what, int error_number) const {
  throw Error(fmt::format("{}: {}", what, std::generic_category().message(error_number)),
              folder_.string(), "Name a folder on the disk that holds the models");
}

int64_t ScratchFile::free_bytes() const {
  struct statvfs space {};
  if (::fstatvfs(descriptor_, &space) != 0) fail("its free space is not known", errno);
  return static_cast<int64_t>(space.f_bavail * space.f_frsize);
}

void ScratchFile::fill(int64_t bytes_min, int64_t bytes_max, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  const Buffer block(kWriteBytes);
  std::mt19937_64 random(1);
  for (size_t i = 0; i < block.bytes() / 8; ++i) block.as<uint64_t>()[i] = random();
  while (bytes_ + kWriteBytes <= bytes_max && (bytes_ < bytes_min || Clock::now() < end)) {
    // A number in each page: a disk that looks for equal blocks must not find any.
    for (size_t page = 0; page < block.bytes(); page += 4096) {
      block.as<uint64_t>()[page / 8] = static_cast<uint64_t>(bytes_) + page;
    }
    ssize_t written = ::pwrite(descriptor_, block.data(), block.bytes(), bytes_);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EINVAL) {
      fail("its file system refuses O_DIRECT, writes past the page cache", EINVAL);
    }
    if (written < 0) fail("the scratch file can't be written", errno);
    if (written != kWriteBytes) fail("the scratch file can't be written", ENOSPC);
    bytes_ += written;
  }
  if (::fdatasync(descriptor_) != 0) fail("the scratch file can't be written", errno);
}

}  // namespace hearth
