// A cursor over untrusted bytes that cannot leave them. A read past the end fails for good: from
// then on every read gives zero or nothing, so that callers may read a whole record and ask once
// whether it was there.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace hearth {

class ByteReader {
 public:
  explicit ByteReader(std::span<const unsigned char> bytes) : bytes_(bytes) {}

  template <typename T>
  T read() {
    T value{};
    if (const unsigned char* from = take(sizeof(T))) std::memcpy(&value, from, sizeof(T));
    return value;
  }

  // A u64 length and that many bytes, which stay where they are.
  std::string_view read_text() {
    const uint64_t length = read<uint64_t>();
    const unsigned char* from = take(length);
    return {reinterpret_cast<const char*>(from), from ? static_cast<size_t>(length) : 0};
  }

  void skip(uint64_t count) { take(count); }
  void fail() { failed_ = true; }

  bool failed() const { return failed_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return failed_ ? 0 : bytes_.size() - position_; }

 private:
  const unsigned char* take(uint64_t count) {
    if (count > remaining()) failed_ = true;
    if (failed_) return nullptr;
    const unsigned char* from = bytes_.data() + position_;
    position_ += count;
    return from;
  }

  std::span<const unsigned char> bytes_;
  uint64_t position_ = 0;
  bool failed_ = false;
};

}  // namespace hearth
