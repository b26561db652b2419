// Models in several files: any part opens all; parts that do not belong together are refused.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "format/gguf_split.h"
#include "gguf_bytes.h"

using namespace hearth;
using namespace hearth::test;

namespace {

constexpr int kParts = 3;

std::string part_name(int part, int count = kParts) {
  return fmt::format("m-{:05}-of-{:05}.gguf", part + 1, count);
}

GgufBytes part_bytes(int part, uint16_t no, uint16_t count, int32_t tensors) {
  GgufBytes file;
  if (part == 0) file.key("general.name", 8, raw_text("cut"));
  file.key("split.no", 2, raw(no)).key("split.count", 2, raw(count));
  file.key("split.tensors.count", 5, raw(tensors));
  file.tensor(fmt::format("t{}", part), {2}, 0, 0);
  file.data_bytes = 32;
  return file;
}

// A whole split model; the returned function writes one part again.
struct SplitModel {
  TemporaryFolder folder;
  SplitModel() {
    for (int part = 0; part < kParts; ++part) {
      put(part, part_bytes(part, static_cast<uint16_t>(part), kParts, kParts));
    }
  }
  void put(int part, const GgufBytes& file) const { write_file(path(part), file.bytes()); }
  std::filesystem::path path(int part) const { return folder.path() / part_name(part); }
};

void check_says(const std::string& message, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    CHECK_MESSAGE(message.find(part) != std::string::npos, part, " missing in: ", message);
  }
}

}  // namespace

TEST_CASE("split names") {
  const auto split = parse_split_name("/x/m-00002-of-00012.gguf");
  REQUIRE(split);
  CHECK(split->part == 1);
  CHECK(split->count == 12);
  CHECK(split->path_of(11) == "/x/m-00012-of-00012.gguf");
  for (const std::string name :
       {"m.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-0001-of-00002.gguf",
        "m-00001-of-00002.bin", "-00001-of-00002.gguf", "m-0000a-of-00002.gguf",
        "m_00001-of-00002.gguf"}) {
    CHECK_MESSAGE(!parse_split_name(name), name);
  }
}

TEST_CASE("any part opens them all") {
  const SplitModel model;
  for (int given = 0; given < kParts; ++given) {
    const TensorDir dir = open_gguf(model.path(given));
    CHECK(dir.files.size() == kParts);
    CHECK(dir.tensors.size() == kParts);
    CHECK(*dir.text("general.name") == "cut");
    CHECK(dir.integer("split.no") == 0);
    for (int part = 0; part < kParts; ++part) {
      const TensorEntry& tensor = *dir.find(fmt::format("t{}", part));
      CHECK(tensor.file == part);
      CHECK(dir.files[part].path.filename() == part_name(part));
      CHECK(tensor.data[0] == 1);
    }
  }
}

TEST_CASE("missing and damaged parts are all named") {
  const SplitModel model;
  std::filesystem::remove(model.path(1));
  check_says(open_error(model.path(0)), {part_name(1), "is missing"});
  write_file(model.path(2), "GGUF");
  check_says(open_error(model.path(0)),
             {"2 problems", "is missing", "00003-of-00003.gguf: the file ends"});
}

TEST_CASE("parts that contradict each other are refused") {
  const SplitModel model;
  model.put(1, part_bytes(1, 2, kParts, kParts));
  check_says(open_error(model.path(0)), {"00002-of-00003.gguf: split.no is 2, but should be 1"});
  model.put(1, part_bytes(1, 1, 4, kParts));
  check_says(open_error(model.path(0)), {"00002-of-00003.gguf: split.count is 4, but should be 3"});
  model.put(1, part_bytes(1, 1, kParts, 9));
  check_says(open_error(model.path(0)), {"split.tensors.count is 9, but should be 3", "differs"});
  model.put(1, part_bytes(0, 1, kParts, kParts));
  check_says(open_error(model.path(2)),
             {"00002-of-00003.gguf: tensor \"t0\" stands in m-00001-of-00003.gguf too"});
  model.put(1, part_bytes(1, 1, kParts, kParts).key("general.name", 8, raw_text("other")));
  check_says(open_error(model.path(2)), {"\"general.name\" differs"});
  model.put(1, small_gguf());
  check_says(open_error(model.path(2)), {"the integer split.count is missing"});
  model.put(1, part_bytes(1, 1, kParts, kParts).key("general.name", 8, raw_text("cut")));
  CHECK(open_error(model.path(2)) == "");
}

TEST_CASE("a part under another name is refused, a split of one file is a file") {
  const TemporaryFolder folder;
  const auto put = [&](const std::string& name, const GgufBytes& file) {
    return open_error(write_file(folder.path() / name, file.bytes()));
  };
  check_says(put("renamed.gguf", part_bytes(0, 0, 3, 3)), {"one part of a split model"});
  CHECK(put("whole.gguf", part_bytes(0, 0, 1, 1)) == "");
  CHECK(put(part_name(0, 1), part_bytes(0, 0, 1, 1)) == "");
  CHECK(put(part_name(0, 1), small_gguf()) == "");
}
