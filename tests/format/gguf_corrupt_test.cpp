// Files as they should not be: each lie is named, none crashes, hangs or takes memory.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <functional>
#include <random>

#include "format/gguf_header.h"
#include "format/mapped_file.h"
#include "gguf_bytes.h"

using namespace hearth;
using namespace hearth::test;

namespace {

// The message of parsing `bytes`; empty where there is no problem.
std::string parse_error(const std::string& bytes) {
  Problems problems("file");
  parse_gguf_header({reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()}, "",
                    problems);
  try {
    problems.throw_if_any("");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

struct Corruption {
  std::string expected;  // words of the message
  std::function<void(GgufBytes&)> apply;
};

constexpr uint64_t kHuge = uint64_t{1} << 62;

// Applied to small_gguf().
const std::vector<Corruption> kCorruptions = {
    {"not a GGUF file", [](GgufBytes& f) { f.magic = "GGML"; }},
    {"not a GGUF file", [](GgufBytes& f) { f.magic = "FUGG"; }},
    {"version 1", [](GgufBytes& f) { f.version = 1; }},
    {"version 4", [](GgufBytes& f) { f.version = 4; }},
    {"version 0", [](GgufBytes& f) { f.version = 0; }},
    {"big-endian", [](GgufBytes& f) { f.version = 0x03000000; }},
    {"claims 4611686018427387904 keys", [](GgufBytes& f) { f.key_claim = kHuge; }},
    {"claims 4611686018427387904 tensors", [](GgufBytes& f) { f.tensor_claim = kHuge; }},
    {"tensor 1 of 2", [](GgufBytes& f) { f.key_claim = 5; }},
    {"tensor 1 of 2", [](GgufBytes& f) { f.key_claim = 3; }},
    {"tensor 3 of 3", [](GgufBytes& f) { f.tensor_claim = 3; }},
    {"the value has type 13", [](GgufBytes& f) { f.key("k", 13, "abcdefgh"); }},
    {"\"n\": the key stands there twice", [](GgufBytes& f) { f.key("n", 0, "a"); }},
    {"neither 0 nor 1", [](GgufBytes& f) { f.key("k", 7, "\2"); }},
    {"9223372036854775808 is too large",
     [](GgufBytes& f) { f.key("k", 10, raw(uint64_t{1} << 63)); }},
    {"18446744073709551615 is too large",
     [](GgufBytes& f) { f.key("k", 9, raw_array(10, 1, raw(UINT64_MAX))); }},
    {"\"a\\xff\" is not UTF-8", [](GgufBytes& f) { f.key("k", 8, raw_text("a\xff")); }},
    {"is not UTF-8", [](GgufBytes& f) { f.key("k", 9, raw_array(8, 1, raw_text("\xc3"))); }},
    {"inside the value", [](GgufBytes& f) { f.key("k", 8, raw(kHuge) + "abc"); }},
    {"inside the value", [](GgufBytes& f) { f.key("k", 8, raw(UINT64_MAX) + "abc"); }},
    {"elements have type 14", [](GgufBytes& f) { f.key("k", 9, raw_array(14, 1, "abcd")); }},
    {"an array of 4611686018427387904 elements",
     [](GgufBytes& f) { f.key("k", 9, raw_array(4, kHuge, "abcd")); }},
    {"an array of 18446744073709551615 elements",
     [](GgufBytes& f) { f.key("k", 9, raw_array(8, UINT64_MAX, "abcd")); }},
    {"an array of 1000 elements",
     [](GgufBytes& f) { f.key("k", 9, raw_array(9, 1, raw_array(4, 1000, "abcd"))); }},
    {"nested more than 4 deep",
     [](GgufBytes& f) {
       std::string value = raw_array(0, 1, "a");
       for (int i = 0; i < 5; ++i) value = raw_array(9, 1, value);
       f.key("k", 9, value);
     }},
    {"the name is empty", [](GgufBytes& f) { f.key("", 0, "a"); }},
    {"the name is not UTF-8", [](GgufBytes& f) { f.key("\xfe", 0, "a"); }},
    {"the name has a NUL", [](GgufBytes& f) { f.key(std::string("a\0b", 3), 0, "a"); }},
    {"the name has 65536 bytes", [](GgufBytes& f) { f.key(std::string(65536, 'k'), 0, "a"); }},
    {"alignment is 0", [](GgufBytes& f) { f.key("general.alignment", 4, raw<uint32_t>(0)); }},
    {"alignment is 4,", [](GgufBytes& f) { f.key("general.alignment", 4, raw<uint32_t>(4)); }},
    {"alignment is 48", [](GgufBytes& f) { f.key("general.alignment", 4, raw<uint32_t>(48)); }},
    {"alignment is -32", [](GgufBytes& f) { f.key("general.alignment", 5, raw<int32_t>(-32)); }},
    {"alignment is not an integer",
     [](GgufBytes& f) { f.key("general.alignment", 8, raw_text("32")); }},
    {"offset 32 is no multiple of the alignment 64",
     [](GgufBytes& f) { f.key("general.alignment", 4, raw<uint32_t>(64)); }},
    {"the name is empty", [](GgufBytes& f) { f.tensor("", {1}, 0, 96); }},
    {"the name has a NUL", [](GgufBytes& f) { f.tensor("\n", {1}, 0, 96); }},
    {"\"a.weight\": the tensor stands there twice",
     [](GgufBytes& f) { f.tensor("a.weight", {1}, 0, 96); }},
    {"\"c\": weight format 4 ", [](GgufBytes& f) { f.tensor("c", {32}, 4, 96); }},
    {"weight format 4294967295", [](GgufBytes& f) { f.tensor("c", {32}, UINT32_MAX, 96); }},
    {"\"c\": 0 dimensions", [](GgufBytes& f) { f.tensor("c", {}, 0, 96); }},
    {"\"c\": 5 dimensions",
     [](GgufBytes& f) {
       f.tensor("c", {1, 1, 1, 1, 1}, 0, 96);
     }},
    {"\"c\": a dimension is 0",
     [](GgufBytes& f) {
       f.tensor("c", {4, 0}, 0, 96);
     }},
    {"a dimension is 18446744073709551615",
     [](GgufBytes& f) {
       f.tensor("c", {4, UINT64_MAX}, 0, 96);
     }},
    {"multiply to more",
     [](GgufBytes& f) {
       f.tensor("c", {4, kHuge, 3}, 0, 96);
     }},
    {"take more than 2^63 bytes", [](GgufBytes& f) { f.tensor("c", {kHuge}, 0, 96); }},
    {"rows of 33 weights",
     [](GgufBytes& f) {
       f.tensor("c", {33, 32}, 8, 96);
     }},
    {"no multiple of the alignment 32", [](GgufBytes& f) { f.tensor("c", {1}, 0, 97); }},
    {"1 of 3 tensors lie past the end", [](GgufBytes& f) { f.tensor("c", {1}, 0, 96); }},
    {"the first \"c\": 4 bytes from 18446744073709551584",
     [](GgufBytes& f) { f.tensor("c", {1}, 0, UINT64_MAX - 31); }},
    {"tensor \"b.weight\" at offset 32 overlaps tensor \"c\", which ends at 36",
     [](GgufBytes& f) { f.tensor("c", {9}, 0, 0); }},
    {"overlaps tensor \"a.weight\"", [](GgufBytes& f) { f.tensor("c", {4}, 0, 0); }},
    {"100 bytes after tensor \"b.weight\" belong to no tensor",
     [](GgufBytes& f) { f.data_bytes = 96 + 100; }},
    {"a gap of 32 bytes before tensor \"c\" at offset 128, after tensor \"b.weight\"",
     [](GgufBytes& f) {
       f.tensor("c", {1}, 0, 128);
       f.data_bytes = 200;
     }},
    {"a gap of 32 bytes before tensor \"c\" at offset 32, after the start",
     [](GgufBytes& f) {
       f = GgufBytes();
       f.tensor("c", {1}, 0, 32);
       f.data_bytes = 64;
     }},
    {"tensor \"d\" at offset 16 overlaps tensor \"c\", which ends at 17",
     [](GgufBytes& f) {
       f = GgufBytes();
       f.key("general.alignment", 4, raw<uint32_t>(8));
       f.tensor("c", {32}, 39, 0).tensor("d", {2}, 0, 16);
       f.data_bytes = 64;
     }},
    {"the arrays together are too long",
     [](GgufBytes& f) {
       const std::string half = raw_array(0, 3 << 20, std::string(3 << 20, 'x'));
       f.key("k", 9, half).key("l", 9, half);
     }},
    {"2 of 2 tensors lie past the end", [](GgufBytes& f) { f.data_bytes = 0; }},
    {"the first \"b.weight\": 34 bytes from 32 on in a data section of 65 bytes",
     [](GgufBytes& f) { f.data_bytes = 65; }},
};

}  // namespace

TEST_CASE("each corruption is refused in words") {
  REQUIRE(parse_error(small_gguf().bytes()) == "");
  for (const Corruption& corruption : kCorruptions) {
    GgufBytes file = small_gguf();
    corruption.apply(file);
    const std::string message = parse_error(file.bytes());
    CHECK_MESSAGE(message.find(corruption.expected) != std::string::npos,
                  "\nexpected: ", corruption.expected, "\ngot: ", message);
  }
}

TEST_CASE("all problems of a file come in one error") {
  GgufBytes file = small_gguf();
  file.key("n", 7, "\7").key("\xff", 0, "a");
  file.tensor("c", {1, 0}, 0, 96).tensor("d", {33}, 2, 96).tensor("e", {32}, 99, 1);
  const std::string message = parse_error(file.bytes());
  for (const std::string part : {"7 problems", "neither 0 nor 1", "twice", "\\xff", "\"c\"",
                                 "rows of 33", "format 99", "offset 1 "}) {
    CHECK_MESSAGE(message.find(part) != std::string::npos, part, " missing in: ", message);
  }
  GgufBytes many;
  for (int i = 0; i < 5000; ++i) many.tensor(fmt::format("t{}", i), {1}, 99, 0);
  CHECK(parse_error(many.bytes()).find("5000 problems") != std::string::npos);
  CHECK(parse_error(many.bytes()).size() < 10000);
}

TEST_CASE("a file cut off anywhere is refused") {
  const std::string whole = small_gguf().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    CHECK_MESSAGE(parse_error(whole.substr(0, size)) != "", size);
  }
}

TEST_CASE("random mutations are opened or refused, never worse") {
  const std::string whole = small_gguf().bytes();
  std::mt19937 random(20240501);
  const auto below = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = whole;
    for (size_t i = 0; i <= below(3); ++i) {
      const size_t at = below(bytes.size());
      switch (below(4)) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
          break;
        case 2:
          bytes[at] = below(2) ? '\xff' : '\0';
          break;
        default:
          bytes.erase(at, 1 + below(8));
          break;
      }
      if (bytes.empty()) break;
    }
    refused += parse_error(bytes) != "";
  }
  CHECK(refused > 10000);
  CHECK(refused < 20000);
}

// Every value of every byte of the counts, lengths, types, shapes and offsets that changes how the
// file is laid out.
TEST_CASE("every changed byte of a tensor's type, shape and offset is found") {
  GgufBytes file;
  file.tensor("a", {32, 2}, 8, 0).tensor("b", {256}, 12, 96);
  file.data_bytes = 96 + 144;
  const std::string whole = file.bytes();
  REQUIRE(parse_error(whole) == "");
  const size_t first = 24 + 8 + 1;  // after "a": dimensions, two of them, type, offset
  for (size_t at = first; at < first + 4 + 16 + 4 + 8; ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string bytes = whole;
      if (bytes[at] == static_cast<char>(value)) continue;
      bytes[at] = static_cast<char>(value);
      // Formats of one size cannot be told apart.
      CHECK_MESSAGE(parse_error(bytes) != "", "byte ", at, " as ", value);
    }
  }
}

TEST_CASE("a huge sparse file with hostile counts costs neither time nor memory") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "sparse.gguf";
  const uint64_t size = uint64_t{1} << 37;
  for (const uint32_t type : {0u, 4u, 8u, 9u}) {
    GgufBytes file;
    file.key("k", 9, raw_array(type, uint64_t{1} << 32, ""));
    write_file(path, file.bytes());
    std::filesystem::resize_file(path, size);
    CHECK(open_error(path).find("an array of 4294967296 elements") != std::string::npos);
  }
  for (const bool keys : {true, false}) {
    GgufBytes file;
    (keys ? file.key_claim : file.tensor_claim) = uint64_t{1} << 30;
    write_file(path, file.bytes());
    std::filesystem::resize_file(path, size);
    CHECK(open_error(path).find("claims 1073741824") != std::string::npos);
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  CHECK(usage.ru_maxrss < 1024 * 1024);  // kilobytes
}

TEST_CASE("what is no readable file is refused by kind") {
  const TemporaryFolder folder;
  const auto path = [&](const char* name) { return folder.path() / name; };
  const auto says = [](const std::string& message, const char* words) {
    CHECK_MESSAGE(message.find(words) != std::string::npos, message);
  };
  says(open_error(path("absent.gguf")), "no such file");
  says(open_error(path("absent/absent.gguf")), "no such file");
  says(open_error(folder.path()), "folder");
  says(open_error(write_file(path("empty.gguf"), "")), "empty");
  REQUIRE(mkfifo(path("fifo.gguf").c_str(), 0600) == 0);
  says(open_error(path("fifo.gguf")), "not a regular file");
  says(open_error("/dev/zero"), "not a regular file");
  says(open_error(path("empty.gguf") / "x"), "no such file");
}
