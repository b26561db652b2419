#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/error.h"
#include "base/tensor_type.h"
#include "base/units.h"
#include "base/workers.h"

using namespace hearth;

TEST_CASE("an error says where, what and what to do") {
  const Error error("it broke", "file.gguf", "Mend it");
  CHECK(std::string(error.what()) == "file.gguf: it broke. Mend it");
  CHECK(error.kind() == Error::Kind::kFailed);
  CHECK(usage_error("bad", "--n", "").kind() == Error::Kind::kUsage);
}

TEST_CASE("problems are reported together and bounded") {
  Problems none("file");
  CHECK_NOTHROW(none.throw_if_any(""));

  Problems many("file");
  for (int i = 0; i < 100000; ++i) many.add("problem " + std::to_string(i));
  try {
    many.throw_if_any("Do something");
    FAIL("no error");
  } catch (const Error& error) {
    const std::string message = error.what();
    CHECK(message.find("100000 problems") != std::string::npos);
    CHECK(message.find("problem 0\n") != std::string::npos);
    CHECK(message.find("problem 99\n") != std::string::npos);
    CHECK(message.find("and 99900 more") != std::string::npos);
    CHECK(message.find("Do something") != std::string::npos);
    CHECK(message.size() < 2000);
  }
}

TEST_CASE("workers run every index once, in pieces of at most the grain") {
  for (const int threads : {1, 2, 5}) {
    const Workers workers(threads);
    std::vector<std::atomic<int>> seen(1003);
    std::atomic<bool> bounded = true;
    workers.for_range(1003, 10, [&](int64_t begin, int64_t end, int thread) {
      if (end - begin > 10 || thread < 0 || thread >= threads) bounded = false;
      for (int64_t i = begin; i < end; ++i) ++seen[i];
    });
    CHECK(bounded);
    bool once = true;
    for (const auto& count : seen) once = once && count == 1;
    CHECK(once);
    workers.for_range(0, 10, [&](int64_t, int64_t, int) { bounded = false; });
    CHECK(bounded);
  }
}

TEST_CASE("types are found by id and by name, unknown ones are not") {
  CHECK(find_type(39)->type == TensorType::kMXFP4);
  CHECK(find_type_by_name("q4_k")->type == TensorType::kQ4_K);
  CHECK(find_type(4) == nullptr);
  CHECK(find_type_by_name("Q9") == nullptr);
  CHECK(row_bytes(TensorType::kQ6_K, 512) == 420);
}

TEST_CASE("a buffer is zeroed, movable and refuses the impossible") {
  Buffer buffer(10000);
  CHECK(buffer.as<int>()[2499] == 0);
  Buffer other = std::move(buffer);
  other.data()[9999] = 1;
  CHECK(other.bytes() == 10000);
  CHECK_THROWS_AS(Buffer(size_t{1} << 62), Error);
}

TEST_CASE("what is committed of a buffer lies in memory before anyone reads or writes it") {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto committed_bytes = [&](const Buffer& buffer) {
    std::vector<unsigned char> pages((buffer.bytes() + page - 1) / page);
    REQUIRE(::mincore(buffer.data(), buffer.bytes(), pages.data()) == 0);
    return page * std::ranges::count_if(pages, [](unsigned char p) { return (p & 1) != 0; });
  };
  constexpr size_t kHugePage = 2 << 20, kPart = 4 * kHugePage + 1;
  for (const int threads : {1, 3}) {
    const Workers workers(threads);
    for (const size_t bytes : {size_t{1}, 3 * page, 9 * kHugePage + 5 * page}) {
      CAPTURE(bytes);
      const Buffer buffer(bytes);
      buffer.commit(workers, kPart);
      CHECK(committed_bytes(buffer) >= std::min(bytes, kPart));
      CHECK(committed_bytes(buffer) <= kPart + kHugePage);
      buffer.commit(workers);
      CHECK(committed_bytes(buffer) >= bytes);
      CHECK(std::ranges::count(std::span(buffer.data(), bytes), 0) == static_cast<int64_t>(bytes));
    }
    Buffer().commit(workers);
  }
}

TEST_CASE("sizes are read in the unit that fits them") {
  CHECK(binary_size(340) == "340 bytes");
  CHECK(binary_size(1) == "1 byte");
  CHECK(binary_size(698368) == "682.0 KiB");
  CHECK(counted(0, "token") == "0 tokens");
  CHECK(counted(1, "token") == "1 token");
  CHECK(binary_size(int64_t{512} << 20) == "512.0 MiB");
  CHECK(binary_size(33607909376) == "31.30 GiB");
}
