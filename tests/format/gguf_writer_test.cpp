// What the writer writes, the reader reads; what fails leaves no file.
#include "format/gguf_writer.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <numeric>

#include "gguf_bytes.h"

using namespace hearth;
using namespace hearth::test;

namespace {

std::vector<unsigned char> counting(size_t bytes) {
  std::vector<unsigned char> values(bytes);
  std::iota(values.begin(), values.end(), static_cast<unsigned char>(1));
  return values;
}

// Files of this process cannot grow past `bytes`, as on a disk that is full.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_);
    const struct rlimit limit = {bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  struct rlimit old_;
  void (*old_handler_)(int);
};

}  // namespace

TEST_CASE("keys and tensors come back") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "written.gguf";
  GgufWriter writer(path);
  writer.add("u8", uint8_t{255});
  writer.add("i8", int8_t{-1});
  writer.add("u16", uint16_t{65535});
  writer.add("i16", int16_t{-2});
  writer.add("u32", uint32_t{4294967295});
  writer.add("i32", -3);
  writer.add("u64", uint64_t{1} << 40);
  writer.add("i64", int64_t{-4});
  writer.add("f32", 0.25f);
  writer.add("f64", 0.1);
  writer.add("bool", true);
  writer.add("text", "words");
  writer.add("i32s", std::vector<int32_t>{-1, 2});
  writer.add("u32s", std::vector<uint32_t>{4294967295});
  writer.add("f32s", std::vector<float>{0.5f});
  writer.add("texts", std::vector<std::string>{"a", ""});
  writer.add_tensor("first", TensorType::kF32, {3, 3});
  writer.add_tensor("hole", TensorType::kMXFP4, {64, 2, 1024, 1024});
  writer.add_tensor("last", TensorType::kQ8_0, {32});
  writer.begin_data();
  const auto first = counting(36), last = counting(34);
  for (const unsigned char& byte : first) writer.write({&byte, 1});
  writer.skip();
  writer.write(last);
  writer.finish();

  const TensorDir dir = open_gguf(path);
  for (const auto& [key, value] :
       std::initializer_list<std::pair<const char*, int64_t>>{{"u8", 255},
                                                              {"i8", -1},
                                                              {"u16", 65535},
                                                              {"i16", -2},
                                                              {"u32", 4294967295},
                                                              {"i32", -3},
                                                              {"u64", int64_t{1} << 40},
                                                              {"i64", -4},
                                                              {"bool", 1}}) {
    CHECK_MESSAGE(dir.integer(key) == value, key);
  }
  CHECK(dir.number("f32") == 0.25);
  CHECK(dir.number("f64") == 0.1);
  CHECK(*dir.text("text") == "words");
  CHECK(std::get<std::vector<int64_t>>(dir.metadata.at("i32s")) == std::vector<int64_t>{-1, 2});
  CHECK(std::get<std::vector<int64_t>>(dir.metadata.at("u32s")) ==
        std::vector<int64_t>{4294967295});
  CHECK(std::get<std::vector<double>>(dir.metadata.at("f32s")) == std::vector<double>{0.5});
  CHECK(std::get<std::vector<std::string>>(dir.metadata.at("texts")).size() == 2);

  const auto bytes_of = [&](const char* name) {
    const TensorEntry& tensor = *dir.find(name);
    return std::vector<unsigned char>(tensor.data, tensor.data + tensor.bytes);
  };
  CHECK(bytes_of("first") == first);
  CHECK(bytes_of("last") == last);
  CHECK(writer.tensor_bytes(0) == 36);
  const TensorEntry& hole = *dir.find("hole");
  CHECK(hole.bytes == uint64_t{2} * 2 * 1024 * 1024 * 17);
  CHECK((hole.data[0] == 0 && hole.data[hole.bytes - 1] == 0));
  CHECK(std::filesystem::file_size(path) == writer.file_bytes());
  struct stat status;
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK(status.st_blocks * 512 < 1 << 20);
}

TEST_CASE("holes may end a file, one write may span tensors") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "m.gguf";
  GgufWriter writer(path);
  for (const char* name : {"a", "b", "c"}) writer.add_tensor(name, TensorType::kF32, {2});
  writer.begin_data();
  writer.write(counting(16));
  writer.skip();
  writer.finish();
  const TensorDir dir = open_gguf(path);
  CHECK(dir.find("a")->data[7] == 8);
  CHECK(dir.find("b")->data[0] == 9);
  CHECK(dir.find("c")->data[0] == 0);
}

TEST_CASE("a full disk is an error that names the file and leaves none") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "full.gguf";
  const auto data = counting(1 << 16);
  const auto attempt = [&](rlim_t limit, bool hole) -> std::string {
    const FileSizeLimit guard(limit);
    try {
      GgufWriter writer(path);
      writer.add_tensor("t", TensorType::kF16, {1 << 15});
      writer.begin_data();
      if (hole) {
        writer.skip();
      } else {
        writer.write(data);
      }
      writer.finish();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  for (const rlim_t limit : {10, 1000, 60000}) {
    const std::string message = attempt(limit, false);
    CHECK_MESSAGE(message.find("full.gguf: cannot write") != std::string::npos, message);
    CHECK(!std::filesystem::exists(path));
  }
  CHECK(attempt(60000, true).find("cannot end") != std::string::npos);
  CHECK(!std::filesystem::exists(path));
  CHECK(attempt(1 << 20, false) == "");
  CHECK(std::filesystem::exists(path));
}

TEST_CASE("places that take no file are refused, an unfinished file goes") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(GgufWriter(folder.path()), Error);
  CHECK_THROWS_AS(GgufWriter(folder.path() / "absent" / "m.gguf"), Error);
  CHECK_THROWS_AS(GgufWriter("/dev/null"), Error);
  CHECK(std::filesystem::exists("/dev/null"));
  {
    GgufWriter writer(folder.path() / "m.gguf");
    writer.begin_data();
    CHECK(std::filesystem::exists(folder.path() / "m.gguf"));
  }
  CHECK(!std::filesystem::exists(folder.path() / "m.gguf"));
}
