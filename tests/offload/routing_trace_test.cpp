#include "offload/sim/routing_trace.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/hash.h"
#include "support.h"

using namespace hearth;

namespace {

RoutingTrace small_trace() {
  RoutingTrace trace = {3, 300, 2, {4, 0, 1}, {}};
  for (int i = 0; i < 5 * 3 * 2; ++i) trace.picks.push_back(static_cast<uint16_t>(i * 37 % 300));
  return trace;
}

// A file whose bytes a test changes before it is read.
class TraceFile {
 public:
  TraceFile() : path_(folder_.path() / "a.trace") {
    write_trace(small_trace(), path_);
    bytes_ = test::read_text(path_);
  }
  std::string& bytes() { return bytes_; }
  template <typename T>
  void put(size_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  // With the checksum that belongs to the bytes in front of it.
  void sign() {
    const size_t header = 8 + 4 * 4 + 8 + 3 * 8;
    const auto* data = reinterpret_cast<const unsigned char*>(bytes_.data());
    std::vector<uint16_t> picks((bytes_.size() - header - 8) / 2);
    std::memcpy(picks.data(), data + header, picks.size() * 2);
    ResultHash hash;
    hash.add(std::span(data, header));
    hash.add(std::span<const uint16_t>(picks));
    put(bytes_.size() - 8, hash.value());
  }
  // What reading it says; empty where it is taken.
  std::string problem() {
    std::ofstream(path_, std::ios::binary) << bytes_;
    try {
      read_trace(path_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

 private:
  test::TemporaryFolder folder_;
  std::filesystem::path path_;
  std::string bytes_;
};

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a trace is split between any two tokens") {
  const RoutingTrace whole = small_trace();
  for (int64_t tokens = 0; tokens <= 5; ++tokens) {
    CAPTURE(tokens);
    const auto [before, after] = split_trace(whole, tokens);
    CHECK(before.tokens() == tokens);
    CHECK(after.tokens() == 5 - tokens);
    std::vector<uint16_t> picks = before.picks;
    CHECK(std::ssize(picks) == tokens * 3 * 2);
    picks.insert(picks.end(), after.picks.begin(), after.picks.end());
    CHECK(picks == whole.picks);
    CHECK(after.experts == 300);
  }
  const auto [before, after] = split_trace(whole, 3);
  CHECK(before.sequences == std::vector<int64_t>{3});
  CHECK(after.sequences == std::vector<int64_t>{1, 1});
}

TEST_CASE("a trace comes back from its file as it was") {
  const test::TemporaryFolder folder;
  const RoutingTrace trace = small_trace();
  write_trace(trace, folder.path() / "a.trace");
  const RoutingTrace back = read_trace(folder.path() / "a.trace");
  CHECK(back.layers == trace.layers);
  CHECK(back.experts == trace.experts);
  CHECK(back.used == trace.used);
  CHECK(back.sequences == trace.sequences);
  CHECK(back.picks == trace.picks);
  CHECK(back.tokens() == 5);
  CHECK(back.at(4, 2)[1] == trace.picks.back());

  RoutingTrace empty = trace;
  empty.sequences.clear();
  empty.picks.clear();
  write_trace(empty, folder.path() / "empty.trace");
  CHECK(read_trace(folder.path() / "empty.trace").tokens() == 0);
}

TEST_CASE("a damaged trace is refused, whatever byte is wrong or missing") {
  TraceFile whole;
  CHECK(whole.problem().empty());
  const std::string bytes = whole.bytes();
  for (size_t at = 0; at < bytes.size(); ++at) {
    CAPTURE(at);
    whole.bytes() = bytes;
    whole.bytes()[at] ^= 0x10;
    CHECK_FALSE(whole.problem().empty());
    whole.bytes() = bytes.substr(0, at);
    CHECK_FALSE(whole.problem().empty());
  }
  whole.bytes() = bytes + '\0';
  CHECK(contains(whole.problem(), "another size"));
}

TEST_CASE("a hostile trace is told what is wrong with it before anything is taken for it") {
  struct Case {
    size_t at;
    uint64_t value;
    int bytes;
    const char* expected;
  };
  constexpr uint64_t kMost = UINT64_MAX;
  for (const Case& c : {
           Case{0, 0, 8, "not a routing trace"},
           Case{8, 2, 4, "version 2, not 1"},
           Case{12, 0, 4, "layers is 0"},
           Case{12, 0xffffffff, 4, "layers is 4294967295"},
           Case{16, 65537, 4, "experts is 65537"},
           Case{20, 301, 4, "used is 301"},
           Case{20, 0, 4, "used is 0"},
           Case{24, kMost, 8, "sequences don't fit"},
           Case{24, uint64_t{1} << 61, 8, "sequences don't fit"},
           Case{32, kMost, 8, "sequence 0"},
           Case{32, uint64_t{1} << 62, 8, "sequence 0"},
           Case{40, kMost - 3, 8, "sequence 1"},
           Case{40, 45, 8, "sequence 1"},
           Case{12, 4000, 4, "layers is 4000"},
           Case{48, 2, 8, "another size"},
           Case{56, 300, 2, "picks expert 300 of 300"},
       }) {
    CAPTURE(c.at);
    TraceFile file;
    std::memcpy(file.bytes().data() + c.at, &c.value, c.bytes);
    file.sign();
    const std::string problem = file.problem();
    CAPTURE(problem);
    CHECK(contains(problem, c.expected));
    CHECK(contains(problem, "a.trace"));
  }
  // Small on disk, large for whoever makes a table of it.
  TraceFile wide;
  wide.put(12, uint32_t{1024});
  wide.put(16, uint32_t{1025});
  CHECK(contains(wide.problem(), "1024 layers of 1025 experts are more"));
  // All that is wrong in one message.
  TraceFile file;
  file.put(12, uint32_t{0});
  file.put(16, uint32_t{0});
  CHECK(contains(file.problem(), "layers is 0"));
  CHECK(contains(file.problem(), "experts is 0"));
}

TEST_CASE("where a trace can't be written or read, the message names the file") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_AS(write_trace(small_trace(), folder.path() / "no" / "a.trace"), Error);
  CHECK_THROWS_AS(write_trace(small_trace(), "/dev/full"), Error);
  CHECK_THROWS_AS(read_trace(folder.path() / "none.trace"), Error);
  CHECK_THROWS_AS(read_trace(folder.path()), Error);
}
