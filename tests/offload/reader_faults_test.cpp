#include <doctest/doctest.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <deque>

#include "base/buffer.h"
#include "offload/io/fake_read_queue.h"
#include "offload/io/reader.h"
#include "offload/reader_run.h"

using namespace hearth;
using namespace hearth::test;

namespace {

// Shows what it is given and does reads in order, from nowhere, when told to.
class ShownQueue final : public ReadQueue {
 public:
  ShownQueue(std::deque<Read>& started, std::vector<Read>& all) : started_(started), all_(all) {}
  void start(const Read& read) noexcept override {
    started_.push_back(read);
    all_.push_back(read);
  }
  void submit() noexcept override {}
  bool poll(ReadDone& done) noexcept override {
    if (finished_.empty()) return false;
    done = finished_.back();
    finished_.pop_back();
    return true;
  }
  ReadDone wait() noexcept override {
    ReadDone done{};
    finish_next(started_.front().bytes);
    poll(done);
    return done;
  }
  void finish_next(int32_t result) {
    finished_.push_back({started_.front().tag, result});
    started_.pop_front();
  }

 private:
  std::vector<ReadDone> finished_;
  std::deque<Read>& started_;
  std::vector<Read>& all_;
};

}  // namespace

TEST_CASE("pieces go out in the order of the requests, on every disk by itself") {
  std::deque<Read> started;
  std::vector<Read> all;
  ReaderOptions options = small_options();
  options.depth = 2;
  std::vector<SourceFile> files;
  files.push_back(SourceFile::imaginary(10, 1));
  files.push_back(SourceFile::imaginary(11, 2));
  files.push_back(SourceFile::imaginary(12, 1));
  Reader reader(std::make_unique<ShownQueue>(started, all), std::move(files), options);
  Buffer memory(1 << 17);
  reader.start({0, 100, 20000, memory.data(), 0});  // three pieces
  reader.start({2, 8192, 8192, memory.data() + 32768, 1});
  reader.start({1, 0, 8192, memory.data() + 65536, 2});
  CHECK(all.empty());
  ReadResult result{};
  CHECK_FALSE(reader.poll(result));
  REQUIRE(all.size() == 3);  // two on the first disk, one on the second
  CHECK(all[0].offset == 0);
  CHECK(all[0].bytes == 8192);
  CHECK(all[1].file == 10);
  CHECK(all[1].offset == 8192);
  CHECK(all[1].to == memory.data() + 8192);
  CHECK(all[2].file == 11);
  CHECK(reader.wait().tag == 2);
  REQUIRE(all.size() == 5);
  CHECK(all[3].file == 10);
  CHECK(all[3].offset == 16384);
  CHECK(all[3].bytes == 4096);
  CHECK(all[4].file == 12);
  CHECK(reader.wait().tag == 0);
  CHECK(reader.wait().tag == 1);
  CHECK(reader.in_flight() == 0);
}

TEST_CASE("a failed piece ends its request once, and the rest of it is not read") {
  const Files files({100000});
  ReaderOptions options = small_options();
  options.depth = 2;
  FakeReadFaults faults;
  faults.script = {{1, -EIO}};
  const auto reader = fake_reader(files, options, faults);
  Run run(files.contents(), {{0, 0, 80000}, {0, 100, 5000}, {0, 70000, 30000}});
  run.go(*reader, options.requests_max);
  CHECK(run.errors() == std::vector<int32_t>{EIO, 0, 0});
  CHECK(reader->stats().bytes < 80000);
}

TEST_CASE("a failed request is answered only when no piece of it is under way") {
  std::deque<Read> started;
  std::vector<Read> all;
  const ReaderOptions options = small_options();
  std::vector<SourceFile> files;
  files.push_back(SourceFile::imaginary(0, 1));
  auto shown = std::make_unique<ShownQueue>(started, all);
  ShownQueue& queue = *shown;
  Reader reader(std::move(shown), std::move(files), options);
  Buffer memory(1 << 17);
  reader.start({0, 0, 30000, memory.data(), 4});  // four pieces, three at once
  ReadResult result{};
  CHECK_FALSE(reader.poll(result));
  for (const int32_t next : {4096, -EIO, 4096}) {
    queue.finish_next(next);
    CHECK_FALSE(reader.poll(result));
  }
  CHECK(all.size() == 4);  // the first again for its rest; nothing once another had failed
  queue.finish_next(-ENOMEM);
  REQUIRE(reader.poll(result));
  CHECK(result.tag == 4);
  CHECK(result.error == EIO);
  CHECK(all.size() == 4);
  CHECK(reader.in_flight() == 0);
}

TEST_CASE("what passes is tried again, what doesn't ends the request") {
  const Files files({100000});
  const ReaderOptions options = small_options();
  const std::vector<Span> spans{{0, 0, 60000}, {0, 1000, 3000}};
  SUBCASE("a few times") {
    FakeReadFaults faults;
    faults.script = {{0, -EINTR}, {1, -EAGAIN}, {3, -EBUSY}};
    const auto reader = fake_reader(files, options, faults);
    Run run(files.contents(), spans);
    run.go(*reader, options.requests_max);
    CHECK(run.count(0) == 2);
    CHECK(reader->stats().retries == 3);
  }
  SUBCASE("more often than any error passes, but something comes in between") {
    ReaderOptions one_piece = options;
    one_piece.depth = 1;
    FakeReadFaults faults;
    for (int read = 0; read <= 160; ++read) faults.script.push_back({read, -EAGAIN});
    faults.script[80].result = 4096;
    const auto reader = fake_reader(files, one_piece, faults);
    Run run(files.contents(), {{0, 0, 8192}});
    run.go(*reader, options.requests_max);
    CHECK(run.count(0) == 1);
    CHECK(reader->stats().retries == 160);
  }
  SUBCASE("for ever") {
    FakeReadFaults faults;
    faults.busy = 1;
    Run run(files.contents(), spans);
    run.go(*fake_reader(files, options, faults), options.requests_max);
    CHECK(run.count(EAGAIN) == 2);
  }
  SUBCASE("another error") {
    for (const int error : {EIO, EFAULT, ENOMEM, EBADF, EREMOTEIO}) {
      FakeReadFaults faults;
      faults.script = {{0, -error}};
      const auto reader = fake_reader(files, options, faults);
      Run run(files.contents(), {spans[0]});
      run.go(*reader, options.requests_max);
      CHECK(run.count(error) == 1);
      CHECK(reader->stats().retries == 0);
    }
  }
}

TEST_CASE("what comes short is asked for again from where it ended") {
  const Files files({100000});
  ReaderOptions options = small_options();
  options.depth = 1;
  const auto stats_with = [&](std::vector<FakeReadFaults::Scripted> script) {
    FakeReadFaults faults;
    faults.script = std::move(script);
    const auto reader = fake_reader(files, options, faults);
    Run run(files.contents(), {{0, 10, 60000}});
    run.go(*reader, options.requests_max);
    CHECK(run.count(0) == 1);
    return reader->stats();
  };
  const ReaderStats moving = stats_with({{0, 4096}, {1, 100}, {2, 2000}, {4, 8191}});
  CHECK(moving.short_reads == 4);
  CHECK(moving.retries == 0);
  CHECK(moving.bytes == 4096 + 100 + 2000 + 4096 + 8191 + 4096 + 61440 - 2 * 8192);
  const ReaderStats stuck = stats_with({{0, 100}, {1, 100}, {2, 50}});
  CHECK(stuck.short_reads == 3);
  CHECK(stuck.retries == 2);
}

TEST_CASE("a file system that refuses O_DIRECT is read through the page cache") {
  const Files files({100000});
  const ReaderOptions options = small_options();
  auto sources = files.open(true);
  if (!sources[0].is_direct()) return;
  const int descriptor = sources[0].descriptor();
  FakeReadFaults faults;
  faults.script = {{0, -EINVAL}, {1, -EINVAL}};
  Reader reader(std::make_unique<FakeReadQueue>(options.depth, faults), std::move(sources),
                options);
  CHECK((::fcntl(descriptor, F_GETFL) & O_DIRECT) != 0);
  Run run(files.contents(), {{0, 10, 60000}});
  run.go(reader, options.requests_max);
  CHECK(run.count(0) == 1);
  CHECK(reader.stats().retries == 2);
  CHECK((::fcntl(descriptor, F_GETFL) & O_DIRECT) == 0);

  const auto cached = fake_reader(
      files,
      [&] {
        ReaderOptions buffered = options;
        buffered.direct = false;
        return buffered;
      }(),
      faults);
  Run refused(files.contents(), {{0, 10, 60000}});
  refused.go(*cached, options.requests_max);
  CHECK(refused.count(EINVAL) == 1);
}

TEST_CASE("a disk that stalls delays its own requests only") {
  const Files files({100000});
  ReaderOptions options = small_options();
  FakeReadFaults faults;
  faults.latency_polls_max = 0;
  faults.stall = 0.2;
  faults.stall_polls = 100000;
  bool overtaken = false;
  for (faults.seed = 1; faults.seed < 20; ++faults.seed) {
    const auto reader = fake_reader(files, options, faults);
    Run run(files.contents(), random_spans(files.contents(), 30, 8000, faults.seed));
    run.go(*reader, options.requests_max);
    CHECK(run.count(0) == 30);
    overtaken = overtaken || !std::ranges::is_sorted(run.order());
  }
  CHECK(overtaken);
}

TEST_CASE("any faults: every request is answered once, and what succeeds is right") {
  const std::vector<Bytes> contents{random_bytes(90001, 1), random_bytes(30011, 2)};
  int64_t failed = 0;
  int64_t succeeded = 0;
  ReaderStats total;
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    CAPTURE(seed);
    FakeReadFaults faults;
    faults.seed = seed;
    faults.latency_polls_max = static_cast<int32_t>(seed % 7);
    faults.error = seed % 2 == 0 ? 0.03 : 0;
    faults.shorter = 0.2;
    faults.busy = 0.2;
    faults.stall = 0.02;
    faults.full = 0.5;
    ReaderOptions options = small_options();
    options.depth = 1 + static_cast<int32_t>(seed % 5);
    std::vector<SourceFile> files;
    files.push_back(SourceFile::imaginary(0, 1));
    files.push_back(SourceFile::imaginary(1, 2));
    Run run(contents, random_spans(contents, 20, 30000, seed));
    Reader reader(
        std::make_unique<FakeReadQueue>(2 * options.depth, faults, read_from_memory(contents)),
        std::move(files), options);
    run.go(reader, 1 + static_cast<int>(seed % 6), seed);
    CHECK(run.count(0) + run.count(EIO) == 20);
    if (faults.error == 0) CHECK(run.count(0) == 20);
    succeeded += run.count(0);
    failed += run.count(EIO);
    total.short_reads += reader.stats().short_reads;
    total.retries += reader.stats().retries;
  }
  CHECK(failed > 500);
  CHECK(succeeded > 15000);
  CHECK(total.short_reads > 1000);
  CHECK(total.retries > 1000);
}

TEST_CASE("the fake does the same again with the same seed, and other things with another") {
  const Files files({100000});
  const auto order = [&](uint64_t seed) {
    FakeReadFaults faults;
    faults.seed = seed;
    Run run(files.contents(), random_spans(files.contents(), 30, 8000, 4));
    run.go(*fake_reader(files, small_options(), faults), 6);
    return run.order();
  };
  CHECK(order(1) == order(1));
  CHECK(order(1) != order(2));
}
