#include "format/gguf_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <type_traits>

#include "base/check.h"
#include "base/error.h"

namespace hearth {
namespace {

constexpr uint64_t kAlignment = 32;
constexpr uint32_t kVersion = 3;
constexpr uint32_t kArrayType = 9;
constexpr size_t kDimsMax = 4;

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
constexpr bool always_false = false;

// The container's id of a C++ type.
template <typename T>
constexpr uint32_t value_type() {
  if constexpr (std::is_same_v<T, uint8_t>)
    return 0;
  else if constexpr (std::is_same_v<T, int8_t>)
    return 1;
  else if constexpr (std::is_same_v<T, uint16_t>)
    return 2;
  else if constexpr (std::is_same_v<T, int16_t>)
    return 3;
  else if constexpr (std::is_same_v<T, uint32_t>)
    return 4;
  else if constexpr (std::is_same_v<T, int32_t>)
    return 5;
  else if constexpr (std::is_same_v<T, float>)
    return 6;
  else if constexpr (std::is_same_v<T, bool>)
    return 7;
  else if constexpr (std::is_same_v<T, std::string>)
    return 8;
  else if constexpr (std::is_same_v<T, uint64_t>)
    return 10;
  else if constexpr (std::is_same_v<T, int64_t>)
    return 11;
  else if constexpr (std::is_same_v<T, double>)
    return 12;
  else
    static_assert(always_false<T>, "no GGUF type");
}

template <typename T>
void put(std::string& out, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put(std::string& out, const std::string& text) {
  put(out, static_cast<uint64_t>(text.size()));
  out += text;
}

template <typename T>
void put_typed(std::string& out, const T& value) {
  put(out, value_type<T>());
  put(out, value);
}

template <typename T>
void put_typed(std::string& out, const std::vector<T>& values) {
  put(out, kArrayType);
  put(out, value_type<T>());
  put(out, static_cast<uint64_t>(values.size()));
  for (const T& value : values) put(out, value);
}

}  // namespace

GgufWriter::GgufWriter(std::filesystem::path path) : path_(std::move(path)) {
  const std::string name = path_.string();
  fd_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
  if (fd_ < 0) {
    throw Error("cannot create the file: " + std::generic_category().message(errno), name,
                "Name a file in a folder that you may write to");
  }
  struct stat status;
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd_);
    throw Error("not a regular file", name, "Name a file: the model is not written in one go");
  }
}

GgufWriter::~GgufWriter() {
  if (finished_) return;
  if (fd_ >= 0) ::close(fd_);
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

void GgufWriter::add(const std::string& key, const GgufValue& value) {
  HEARTH_CHECK(!in_data_);
  put(keys_, key);
  std::visit([&](const auto& held) { put_typed(keys_, held); }, value);
  ++key_count_;
}

void GgufWriter::add_tensor(const std::string& name, TensorType type,
                            const std::vector<int64_t>& dims) {
  HEARTH_CHECK(!in_data_ && !dims.empty() && dims.size() <= kDimsMax);
  put(infos_, name);
  put(infos_, static_cast<uint32_t>(dims.size()));
  int64_t rows = 1;
  for (size_t d = 0; d < dims.size(); ++d) {
    HEARTH_CHECK(dims[d] > 0);
    put(infos_, dims[d]);
    if (d > 0) rows *= dims[d];
  }
  put(infos_, static_cast<uint32_t>(type));
  put(infos_, data_bytes_);
  tensors_.push_back({data_bytes_, static_cast<uint64_t>(rows * row_bytes(type, dims[0]))});
  data_bytes_ += aligned(tensors_.back().bytes);
}

void GgufWriter::begin_data() {
  HEARTH_CHECK(!in_data_);
  in_data_ = true;
  std::string header = "GGUF";
  put(header, kVersion);
  put(header, static_cast<uint64_t>(tensors_.size()));
  put(header, key_count_);
  header += keys_;
  header += infos_;
  header.resize(aligned(header.size()));
  write_at(0, header.data(), header.size());
  for (Tensor& tensor : tensors_) tensor.offset += header.size();
  file_bytes_ = header.size() + data_bytes_;
  keys_ = infos_ = std::string();
}

void GgufWriter::write(std::span<const unsigned char> bytes) {
  HEARTH_CHECK(in_data_ && !finished_);
  while (!bytes.empty()) {
    HEARTH_CHECK(current_ < tensors_.size());
    const Tensor& tensor = tensors_[current_];
    const auto piece = bytes.first(std::min<uint64_t>(bytes.size(), tensor.bytes - written_));
    write_at(tensor.offset + written_, piece.data(), piece.size());
    written_ += piece.size();
    bytes = bytes.subspan(piece.size());
    if (written_ < tensor.bytes) return;
    ++current_;
    written_ = 0;
  }
}

void GgufWriter::skip() {
  HEARTH_CHECK(in_data_ && !finished_ && current_ < tensors_.size() && written_ == 0);
  ++current_;
}

void GgufWriter::finish() {
  HEARTH_CHECK(in_data_ && !finished_ && current_ == tensors_.size());
  // Makes the padding and any holes at the end part of the file.
  if (::ftruncate(fd_, static_cast<off_t>(file_bytes_)) != 0) throw_failed("end", errno);
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) throw_failed("close", errno);
  finished_ = true;
}

void GgufWriter::write_at(uint64_t offset, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw_failed("write", done < 0 ? errno : EIO);
    from += done;
    offset += static_cast<uint64_t>(done);
    bytes -= static_cast<size_t>(done);
  }
}

void GgufWriter::throw_failed(const char* step, int error_number) {
  throw Error(
      std::string("cannot ") + step + " the file: " + std::generic_category().message(error_number),
      path_.string(), "Free space on that disk or name another; the partial file is removed");
}

}  // namespace hearth
