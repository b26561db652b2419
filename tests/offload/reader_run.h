// What the tests of readers share: small files, readers over each queue, and a run of requests
// whose answers are compared with the files.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "offload/io/fake_read_queue.h"
#include "offload/io/reader.h"
#include "support.h"

namespace hearth::test {

using Bytes = std::vector<unsigned char>;

inline Bytes random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

// Small files of random bytes with odd lengths.
class Files {
 public:
  explicit Files(std::vector<size_t> sizes) {
    for (const size_t size : sizes) {
      contents_.push_back(random_bytes(size, size));
      files_.push_back({folder_.path() / std::to_string(files_.size())});
      std::ofstream(files_.back().path, std::ios::binary)
          .write(reinterpret_cast<const char*>(contents_.back().data()),
                 static_cast<std::streamsize>(size));
    }
  }
  const std::vector<ReaderFile>& files() const { return files_; }
  const std::vector<Bytes>& contents() const { return contents_; }
  std::vector<SourceFile> open(bool direct) const {
    std::vector<std::string> notes;
    std::vector<SourceFile> sources;
    for (const ReaderFile& file : files_) sources.emplace_back(file.path, direct, notes);
    return sources;
  }

 private:
  test::TemporaryFolder folder_;
  std::vector<Bytes> contents_;
  std::vector<ReaderFile> files_;
};

inline ReaderOptions small_options() {
  ReaderOptions options;
  options.requests_max = 6;
  options.depth = 3;
  options.piece_bytes = 8192;
  return options;
}

inline std::unique_ptr<Reader> fake_reader(const Files& files, const ReaderOptions& options,
                                           const FakeReadFaults& faults) {
  return std::make_unique<Reader>(std::make_unique<FakeReadQueue>(options.depth, faults),
                                  files.open(options.direct), options);
}

enum class Kind { kRing, kThreads, kFake };

inline std::unique_ptr<Reader> open_kind(Kind kind, const Files& files, ReaderOptions options) {
  if (kind == Kind::kFake) return fake_reader(files, options, {});
  options.use_uring = kind == Kind::kRing;
  return open_reader(files.files(), options).reader;
}

inline void for_each_kind(const std::function<void(Kind, bool direct)>& run) {
  for (const Kind kind : {Kind::kRing, Kind::kThreads, Kind::kFake}) {
    for (const bool direct : {true, false}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(direct);
      run(kind, direct);
    }
  }
}

struct Span {
  int32_t file;
  int64_t offset;
  int64_t bytes;
};

inline std::vector<Span> random_spans(const std::vector<Bytes>& contents, int count,
                                      int64_t bytes_max, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Span> spans;
  for (int i = 0; i < count; ++i) {
    const auto file = static_cast<int32_t>(random() % contents.size());
    const int64_t size = std::ssize(contents[static_cast<size_t>(file)]);
    const int64_t bytes = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(bytes_max));
    const int64_t offset = static_cast<int64_t>(random() % static_cast<uint64_t>(size - bytes + 1));
    spans.push_back({file, offset, bytes});
  }
  return spans;
}

// Asks for spans, as many at once as the reader takes, and compares what comes.
class Run {
 public:
  Run(const std::vector<Bytes>& contents, std::vector<Span> spans)
      : contents_(contents), spans_(std::move(spans)), errors_(spans_.size(), kUnanswered) {
    for (const Span& span : spans_) {
      room_ = std::max(room_, Reader::padded_bytes(span.offset, span.bytes));
    }
    memory_ = Buffer(static_cast<size_t>(room_) * spans_.size());
    std::memset(memory_.data(), 0x5a, memory_.bytes());
  }

  std::span<unsigned char> memory() const { return {memory_.data(), memory_.bytes()}; }
  // By span.
  const std::vector<int32_t>& errors() const { return errors_; }
  // In the order they were answered.
  const std::vector<uint64_t>& order() const { return order_; }

  void start_next(Reader& reader) {
    const Span& span = spans_[started_];
    reader.start({span.file, span.offset, span.bytes, room(started_), started_});
    ++started_;
  }

  void go(Reader& reader, int at_once, uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    while (order_.size() < spans_.size()) {
      while (started_ < spans_.size() && reader.in_flight() < at_once) start_next(reader);
      ReadResult result{};
      if (random() % 2 == 0) {
        take(reader.wait());
      } else if (reader.poll(result)) {
        take(result);
      }
    }
    CHECK(reader.in_flight() == 0);
    ReadResult result{};
    CHECK_FALSE(reader.poll(result));
  }

  void take(const ReadResult& result) {
    REQUIRE(result.tag < started_);
    REQUIRE(errors_[result.tag] == kUnanswered);
    errors_[result.tag] = result.error;
    order_.push_back(result.tag);
    if (result.error != 0) return;
    const Span& span = spans_[result.tag];
    const unsigned char* came = room(result.tag) + span.offset % Reader::kAlignment;
    const unsigned char* want = contents_[static_cast<size_t>(span.file)].data() + span.offset;
    REQUIRE(std::memcmp(came, want, static_cast<size_t>(span.bytes)) == 0);
  }

  int64_t count(int32_t error) const { return std::ranges::count(errors_, error); }

 private:
  static constexpr int32_t kUnanswered = -1;

  unsigned char* room(size_t place) const {
    return memory_.data() + static_cast<int64_t>(place) * room_;
  }

  const std::vector<Bytes>& contents_;
  const std::vector<Span> spans_;
  int64_t room_ = 0;
  Buffer memory_;
  std::vector<int32_t> errors_;
  std::vector<uint64_t> order_;
  size_t started_ = 0;
};

}  // namespace hearth::test
