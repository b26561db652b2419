#include "offload/io/reader.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/buffer.h"
#include "base/error.h"
#include "offload/reader_run.h"
#include "support.h"

using namespace hearth;
using namespace hearth::test;

TEST_CASE("a request's room holds whole blocks") {
  CHECK(Reader::padded_bytes(0, 1) == 4096);
  CHECK(Reader::padded_bytes(0, 4096) == 4096);
  CHECK(Reader::padded_bytes(0, 4097) == 8192);
  CHECK(Reader::padded_bytes(4095, 1) == 4096);
  CHECK(Reader::padded_bytes(4095, 2) == 8192);
  CHECK(Reader::padded_bytes(32, 4096) == 8192);
  CHECK(Reader::padded_bytes((int64_t{1} << 40) + 5000, 100000) == 102400);
}

TEST_CASE("requests of any place and length come back whole from every queue") {
  const Files files({300001, 70007, 9000});
  for_each_kind([&](Kind kind, bool direct) {
    const auto spans = random_spans(files.contents(), 150, 9000, 3);
    Run run(files.contents(), spans);
    ReaderOptions options = small_options();
    options.direct = direct;
    // Two areas that don't cover all: some rooms are pinned, some not, some partly.
    options.memory = {run.memory().subspan(500000, 300000), run.memory().first(200000)};
    const auto reader = open_kind(kind, files, options);
    run.go(*reader, options.requests_max);
    CHECK(run.count(0) == 150);
    const ReaderStats stats = reader->stats();
    int64_t asked = 0;
    int64_t padded = 0;
    for (const Span& span : spans) {
      asked += span.bytes;
      padded += Reader::padded_bytes(span.offset, span.bytes);
    }
    CHECK(stats.requests == 150);
    CHECK(stats.bytes >= asked);
    CHECK(stats.bytes <= padded);
    CHECK(stats.busy_seconds > 0);
    CHECK(stats.wait_seconds > 0);
    CHECK(stats.short_reads == 0);
    CHECK(stats.retries == 0);
    reader->clear_stats();
    CHECK(reader->stats().bytes == 0);
    CHECK(reader->stats().busy_seconds == 0);
  });
}

TEST_CASE("one request, one piece at a time") {
  const Files files({50000});
  for_each_kind([&](Kind kind, bool direct) {
    ReaderOptions options;
    options.requests_max = 1;
    options.depth = 1;
    options.piece_bytes = 4096;
    options.direct = direct;
    Run run(files.contents(), random_spans(files.contents(), 20, 30000, 5));
    options.memory = {run.memory()};
    run.go(*open_kind(kind, files, options), 1);
    CHECK(run.count(0) == 20);
  });
}

TEST_CASE("many more requests than pieces under way") {
  const Files files({200000, 100000});
  for_each_kind([&](Kind kind, bool direct) {
    ReaderOptions options = small_options();
    options.requests_max = 200;
    options.depth = 2;
    options.direct = direct;
    Run run(files.contents(), random_spans(files.contents(), 200, 20000, 6));
    run.go(*open_kind(kind, files, options), 200);
    CHECK(run.count(0) == 200);
  });
}

TEST_CASE("the file's last bytes are there, and what lies behind them is told") {
  constexpr int64_t kSize = 3 * 8192 + 123;
  const Files files({kSize});
  for_each_kind([&](Kind kind, bool direct) {
    ReaderOptions options = small_options();
    options.direct = direct;
    Run run(files.contents(), {{0, 0, kSize},
                               {0, kSize - 1, 1},
                               {0, 8000, kSize - 8000},
                               {0, 0, kSize + 1},
                               {0, kSize - 1, 2},
                               {0, kSize, 1},
                               {0, kSize + 100000, 50000},
                               {0, 5, 20000}});
    const auto reader = open_kind(kind, files, options);
    run.go(*reader, options.requests_max);
    CHECK(run.errors() == std::vector<int32_t>{0, 0, 0, ENODATA, ENODATA, ENODATA, ENODATA, 0});
  });
}

TEST_CASE("a file that shrinks while it is read from loses only what it lost") {
  for_each_kind([&](Kind kind, bool direct) {
    const Files files({100000});
    ReaderOptions options = small_options();
    options.direct = direct;
    const auto reader = open_kind(kind, files, options);
    REQUIRE(::truncate(files.files()[0].path.c_str(), 40000) == 0);
    Run run(files.contents(),
            {{0, 0, 40000}, {0, 0, 40001}, {0, 90000, 100}, {0, 30000, 10000}, {0, 0, 100000}});
    run.go(*reader, options.requests_max);
    CHECK(run.errors() == std::vector<int32_t>{0, ENODATA, ENODATA, 0, ENODATA});
  });
}

TEST_CASE("requests may share a tag; each is answered") {
  const Files files({100000});
  for_each_kind([&](Kind kind, bool direct) {
    ReaderOptions options = small_options();
    options.direct = direct;
    const Buffer memory(6 * 4096);
    const auto reader = open_kind(kind, files, options);
    for (int i = 0; i < 6; ++i) {
      reader->start({0, i * 10000, 50, memory.data() + i * 8192 / 2, i < 4 ? 7u : 8u});
    }
    std::vector<uint64_t> tags;
    for (int i = 0; i < 6; ++i) tags.push_back(reader->wait().tag);
    CHECK(std::ranges::count(tags, 7) == 4);
    CHECK(std::ranges::count(tags, 8) == 2);
  });
}

TEST_CASE("a reader that goes with reads in flight writes nothing afterwards") {
  const Files files({400000});
  for_each_kind([&](Kind kind, bool direct) {
    for (int round = 0; round < 20; ++round) {
      ReaderOptions options = small_options();
      options.direct = direct;
      Buffer memory(6 * 16384);
      options.memory = {{memory.data(), memory.bytes()}};
      auto reader = open_kind(kind, files, options);
      for (int i = 0; i < 6; ++i) reader->start({0, i * 50000, 8000, memory.data() + i * 16384, 0});
      ReadResult result{};
      if (round % 3 > 0) reader->poll(result);
      if (round % 3 > 1) reader->wait();
      reader.reset();
      const Bytes after(memory.data(), memory.data() + memory.bytes());
      if (round == 0) ::usleep(1000);
      CHECK(std::memcmp(after.data(), memory.data(), memory.bytes()) == 0);
    }
  });
}

TEST_CASE("what the machine refuses is told, and reads go another way") {
  const Files files({100000});
  const std::vector<Span> spans = random_spans(files.contents(), 20, 8000, 4);
  SUBCASE("memory that can't be pinned") {
    Run run(files.contents(), spans);
    void* forbidden = ::mmap(nullptr, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(forbidden != MAP_FAILED);
    ReaderOptions options = small_options();
    options.memory = {run.memory(), {static_cast<unsigned char*>(forbidden), 8192}};
    const OpenReader open = open_reader(files.files(), options);
    REQUIRE(open.notes.size() == 1);  // about io_uring where that is refused as a whole
    run.go(*open.reader, options.requests_max);
    CHECK(run.count(0) == 20);
    ::munmap(forbidden, 8192);
  }
  SUBCASE("O_DIRECT") {
    const OpenReader open = open_reader({{"/proc/version"}}, small_options());
    REQUIRE(open.notes.size() >= 1);
    CHECK(open.notes[0].find("/proc/version") == 0);
    const Buffer memory(4096);
    open.reader->start({0, 0, 5, memory.data(), 3});
    CHECK(open.reader->wait().error == 0);
    CHECK(std::memcmp(memory.data(), "Linux", 5) == 0);
  }
  SUBCASE("nothing, where threads are wanted") {
    ReaderOptions options = small_options();
    options.use_uring = false;
    CHECK(open_reader(files.files(), options).notes.empty());
  }
}

TEST_CASE("files that can't be read are refused by name") {
  const Files files({100});
  const test::TemporaryFolder folder;
  for (const std::filesystem::path& wrong : {folder.path() / "nowhere", folder.path()}) {
    CAPTURE(wrong);
    CHECK_THROWS_WITH_AS(open_reader({files.files()[0], {wrong}}, small_options()),
                         doctest::Contains(wrong.c_str()), Error);
  }
}
