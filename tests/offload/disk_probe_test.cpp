#include "offload/io/disk_probe.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>

#include "base/buffer.h"
#include "base/check.h"
#include "base/error.h"
#include "offload/io/read_queue.h"
#include "offload/io/scratch_file.h"
#include "support.h"

using namespace hearth;

namespace {

constexpr int64_t kMiB = 1 << 20;

DiskProbeOptions short_probe() {
  DiskProbeOptions options;
  options.blocks = {4 << 10, 1 << 20};
  options.depths = {1, 8};
  options.seconds = 0.02;
  options.bytes_max = 64 * kMiB;
  return options;
}

// A queue of each kind that this machine allows.
std::map<std::string, std::unique_ptr<ReadQueue>> queues(int depth) {
  std::map<std::string, std::unique_ptr<ReadQueue>> result;
  int error = 0;
  result["threads"] = open_read_threads(depth);
  if (auto ring = open_uring(depth, error)) {
    result["io_uring"] = std::move(ring);
  } else {
    CHECK(error != 0);
    MESSAGE("io_uring is refused here: " << std::strerror(error));
  }
  return result;
}

class OpenFile {
 public:
  explicit OpenFile(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    HEARTH_CHECK(descriptor_ >= 0);
  }
  ~OpenFile() { ::close(descriptor_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace

TEST_CASE("queues read what is asked for, in any order, and tell what failed") {
  const test::TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 100000; ++i) content += static_cast<char>('a' + i % 23);
  std::ofstream(folder.path() / "data") << content;
  const OpenFile file(folder.path() / "data");
  constexpr int kDepth = 5, kBytes = 1000, kReads = 40;
  std::vector<unsigned char> memory(kReads * kBytes);  // outlives the queues
  for (auto& [name, queue] : queues(kDepth)) {
    CAPTURE(name);
    std::ranges::fill(memory, 0);
    std::vector<bool> done(kReads);
    int started = 0;
    const auto start = [&] {
      queue->start({file.descriptor(), started * 2111, kBytes, memory.data() + started * kBytes,
                    static_cast<uint64_t>(started)});
      ++started;
    };
    while (started < kDepth) start();
    for (int i = 0; i < kReads; ++i) {
      const ReadDone read = queue->wait();
      REQUIRE(read.tag < kReads);
      CHECK_FALSE(done[read.tag]);
      done[read.tag] = true;
      CHECK(read.result == kBytes);
      CHECK(std::memcmp(memory.data() + read.tag * kBytes, content.data() + read.tag * 2111,
                        kBytes) == 0);
      if (started < kReads) start();
    }
    queue->start({file.descriptor(), std::ssize(content) - 10, kBytes, memory.data(), 1});
    CHECK(queue->wait().result == 10);
    queue->start({-1, 0, kBytes, memory.data(), 2});
    CHECK(queue->wait().result == -EBADF);
    std::ranges::fill(memory, 0);
    queue->start({file.descriptor(), 0, kBytes, memory.data(), 3});
    queue.reset();  // waits for it
    CHECK(std::memcmp(memory.data(), content.data(), kBytes) == 0);
  }
}

TEST_CASE("a disk is measured through the ring and through threads, and nothing stays") {
  const test::TemporaryFolder folder;
  for (const bool use_uring : {true, false}) {
    CAPTURE(use_uring);
    DiskProbeOptions options = short_probe();
    options.use_uring = use_uring;
    int steps = 0;
    const DiskProbeResult result = probe_disk(folder.path(), options, [&](int done, int total) {
      CHECK(done == steps++);
      CHECK(total == 4);
      CHECK(std::filesystem::is_empty(folder.path()));
    });
    CHECK(result.file_bytes == 64 * kMiB);
    REQUIRE(result.rates.size() == 4);
    for (size_t i = 0; i < 4; ++i) {
      const DiskRate& rate = result.rates[i];
      CHECK(rate.block_bytes == (i < 2 ? 4096 : kMiB));
      CHECK(rate.depth == (i % 2 == 0 ? 1 : 8));
      CHECK(rate.read_gb_s > 0);
      CHECK(rate.latency_us > 0);
      // Reads in flight, by the time each takes and the bytes that came, are about the depth.
      const double reads_a_second = rate.read_gb_s * 1e9 / static_cast<double>(rate.block_bytes);
      const double in_flight = reads_a_second * rate.latency_us * 1e-6;
      CHECK(in_flight <= 1.001 * rate.depth);
      CHECK(in_flight > 0.2 * rate.depth);
    }
    CHECK(std::filesystem::is_empty(folder.path()));
  }
}

TEST_CASE("a slow disk gets fewer figures, not a longer wait") {
  const test::TemporaryFolder folder;
  DiskProbeOptions options = short_probe();
  options.seconds_max = 0;
  const DiskProbeResult result = probe_disk(folder.path(), options);
  CHECK(result.rates.size() == 1);
  REQUIRE(result.notes.size() >= 1);
  CHECK(result.notes.back().find("3 of 4 figures") != std::string::npos);
}

TEST_CASE("where writing is slow the file stays small, and writing counts as time") {
  const test::TemporaryFolder folder;
  DiskProbeOptions options = short_probe();
  options.write_seconds = 0;
  const DiskProbeResult small = probe_disk(folder.path(), options);
  CHECK(small.file_bytes == 16 * kMiB);
  CHECK(small.rates.size() == 4);
  REQUIRE(small.notes.size() >= 1);
  CHECK(small.notes.front().find("writes slowly") != std::string::npos);
  options.write_seconds = 60;
  options.seconds_max = 1e-3;  // less than any disk needs to write the file
  options.seconds = 1e-9;
  CHECK(probe_disk(folder.path(), options).rates.size() == 1);
}

TEST_CASE("the scratch file is whole units of random bytes, and goes with an error too") {
  const test::TemporaryFolder folder;
  for (const auto naming : {ScratchFile::Naming::kNone, ScratchFile::Naming::kUnlinked}) {
    try {
      ScratchFile file(folder.path(), naming);
      CHECK(std::filesystem::is_empty(folder.path()));
      file.fill(4 * kMiB, 10 * kMiB, 60);
      CHECK(file.bytes() == 8 * kMiB);
      CHECK(file.free_bytes() > 0);
      Buffer block(4096), other(4096);
      CHECK(::pread(file.descriptor(), block.data(), 4096, 0) == 4096);
      CHECK(::pread(file.descriptor(), other.data(), 4096, 4 * kMiB) == 4096);
      CHECK(std::memcmp(block.data(), other.data(), 4096) != 0);
      file.fill(12 * kMiB, 40 * kMiB, 0);  // no time left: the least there must be
      CHECK(file.bytes() == 12 * kMiB);
      throw Error("something failed", "", "");
    } catch (const Error& error) {
      CHECK(std::string(error.what()) == "something failed");
    }
    CHECK(std::filesystem::is_empty(folder.path()));
  }
}

TEST_CASE("a scratch file takes a quarter of what is free, or nothing") {
  CHECK(scratch_bytes(int64_t{100} << 30, int64_t{2} << 30) == int64_t{2} << 30);
  CHECK(scratch_bytes(400 * kMiB, int64_t{2} << 30) == 100 * kMiB);
  CHECK(scratch_bytes(403 * kMiB, int64_t{2} << 30) == 100 * kMiB);
  CHECK(scratch_bytes(255 * kMiB, int64_t{2} << 30) == 0);
  CHECK(scratch_bytes(0, int64_t{2} << 30) == 0);
}

TEST_CASE("folders that can't hold a scratch file are refused by name") {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "file";
  std::ofstream(file) << "x";
  for (const std::filesystem::path& wrong :
       {file, folder.path() / "nowhere", std::filesystem::path("/proc/self")}) {
    CAPTURE(wrong);
    CHECK_THROWS_WITH_AS(probe_disk(wrong, short_probe()), doctest::Contains(wrong.c_str()), Error);
  }
}
