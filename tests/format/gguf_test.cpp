// Files as they should be: every kind of value, both versions, the models at hand.
#include "format/gguf.h"

#include <doctest/doctest.h>

#include <chrono>
#include <set>

#include "base/error.h"
#include "format/gguf_value.h"
#include "format/mapped_file.h"
#include "gguf_bytes.h"

using namespace hearth;
using namespace hearth::test;

TEST_CASE("every kind of value is read, in versions 2 and 3") {
  const TemporaryFolder folder;
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes file;
    file.version = version;
    file.key("u8", 0, raw<uint8_t>(200)).key("i8", 1, raw<int8_t>(-100));
    file.key("u16", 2, raw<uint16_t>(60000)).key("i16", 3, raw<int16_t>(-30000));
    file.key("u32", 4, raw<uint32_t>(4000000000)).key("i32", 5, raw<int32_t>(-2000000000));
    file.key("u64", 10, raw<uint64_t>(INT64_MAX)).key("i64", 11, raw<int64_t>(INT64_MIN));
    file.key("f32", 6, raw(0.1f)).key("f64", 12, raw(0.1));
    file.key("false", 7, raw<uint8_t>(0)).key("true", 7, raw<uint8_t>(1));
    file.key("text", 8, raw_text("grüß \xf0\x9f\x94\xa5")).key("empty", 8, raw_text(""));
    file.key("bools", 9, raw_array(7, 2, raw<uint8_t>(1) + raw<uint8_t>(0)));
    file.key("i16s", 9, raw_array(3, 2, raw<int16_t>(-1) + raw<int16_t>(5)));
    file.key("u64s", 9, raw_array(10, 1, raw<uint64_t>(1)));
    file.key("f32s", 9, raw_array(6, 2, raw(0.5f) + raw(-1.5f)));
    file.key("f64s", 9, raw_array(12, 1, raw(0.1)));
    file.key("texts", 9, raw_array(8, 2, raw_text("") + raw_text("b")));
    file.key("none", 9, raw_array(5, 0, "")).key("no texts", 9, raw_array(8, 0, ""));
    const std::string inner = raw_array(0, 2, "ab") + raw_array(8, 1, raw_text("x"));
    file.key("nested", 9, raw_array(9, 2, inner)).key("after", 0, raw<uint8_t>(1));

    const TensorDir dir = open_gguf(write_file(folder.path() / "values.gguf", file.bytes()));
    CHECK(dir.files.at(0).version == version);
    CHECK(dir.integer("u8") == 200);
    CHECK(dir.integer("i8") == -100);
    CHECK(dir.integer("u16") == 60000);
    CHECK(dir.integer("i16") == -30000);
    CHECK(dir.integer("u32") == 4000000000);
    CHECK(dir.integer("i32") == -2000000000);
    CHECK(dir.integer("u64") == INT64_MAX);
    CHECK(dir.integer("i64") == INT64_MIN);
    CHECK(dir.number("f32") == static_cast<double>(0.1f));
    CHECK(dir.number("f64") == 0.1);
    CHECK(dir.number("u8") == 200.0);
    CHECK(dir.integer("false") == 0);
    CHECK(dir.integer("true") == 1);
    CHECK(*dir.text("text") == "grüß \xf0\x9f\x94\xa5");
    CHECK(*dir.text("empty") == "");
    CHECK(std::get<std::vector<int64_t>>(dir.metadata.at("bools")) == std::vector<int64_t>{1, 0});
    CHECK(std::get<std::vector<int64_t>>(dir.metadata.at("i16s")) == std::vector<int64_t>{-1, 5});
    CHECK(std::get<std::vector<int64_t>>(dir.metadata.at("u64s")) == std::vector<int64_t>{1});
    CHECK(std::get<std::vector<double>>(dir.metadata.at("f32s")) == std::vector<double>{0.5, -1.5});
    CHECK(std::get<std::vector<double>>(dir.metadata.at("f64s")) == std::vector<double>{0.1});
    CHECK(std::get<std::vector<std::string>>(dir.metadata.at("texts")) ==
          std::vector<std::string>{"", "b"});
    CHECK(std::get<std::vector<int64_t>>(dir.metadata.at("none")).empty());
    CHECK(std::get<std::vector<std::string>>(dir.metadata.at("no texts")).empty());
    CHECK(dir.metadata.count("nested") == 0);
    CHECK(dir.integer("after") == 1);
    // Another kind of value than asked for, or none at all.
    CHECK_FALSE(dir.integer("f32"));
    CHECK_FALSE(dir.integer("bools"));
    CHECK_FALSE(dir.number("text"));
    CHECK_FALSE(dir.number("absent"));
    CHECK(dir.text("u8") == nullptr);
    CHECK(dir.find("absent") == nullptr);
  }
}

TEST_CASE("tensors lie where the header says") {
  const TemporaryFolder folder;
  for (const uint64_t alignment : {8u, 32u, 4096u}) {
    GgufBytes file;
    file.key("general.alignment", 4, raw(static_cast<uint32_t>(alignment)));
    // Not in the order of their offsets; no bytes after the last weight.
    file.tensor("b", {32, 1, 2, 3}, 2, alignment).tensor("a", {2}, 0, 0);
    file.alignment = alignment;
    file.data_bytes = alignment + 6 * 18;
    const std::string bytes = file.bytes();
    const TensorDir dir = open_gguf(write_file(folder.path() / "m.gguf", bytes));
    const TensorEntry& b = *dir.find("b");
    CHECK(b.name == "b");
    CHECK(b.type == TensorType::kQ4_0);
    CHECK(b.dims == std::vector<int64_t>{32, 1, 2, 3});
    CHECK(b.file == 0);
    CHECK(b.bytes == 6 * 18);
    CHECK(b.offset == bytes.size() - b.bytes);
    CHECK(std::string(reinterpret_cast<const char*>(b.data), b.bytes) == bytes.substr(b.offset));
    CHECK(dir.find("a")->offset == b.offset - alignment);
    CHECK(dir.files.at(0).mapping->bytes().size() == bytes.size());
    // What comes after the last tensor is nobody's business.
    CHECK(open_error(write_file(folder.path() / "m.gguf", bytes + "more")) == "");
  }
}

TEST_CASE("names and strings are UTF-8") {
  for (const std::string good : {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf",
                                 "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK_MESSAGE(is_utf8(good), in_quotes(good));
  }
  for (const std::string bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x9f\xbf",
                                "\xe2\x82", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                                "\xf5\x80\x80\x80", "\xff", "\xe2(\xa1", "a\xf0\x9f\x94"}) {
    CHECK_FALSE_MESSAGE(is_utf8(bad), in_quotes(bad));
  }
  CHECK(in_quotes("a\n\xff\x1b[ü") == "\"a\\x0a\\xff\\x1b[ü\"");
  CHECK(in_quotes(std::string(100000, 'x')).size() < 100);
}

// Every GGUF file at hand opens, quickly, and its tensors tile the file.
TEST_CASE("the shared models and vocabularies open") {
  if (!has_shared()) return skip("the shared models are absent");
  int models = 0;
  for (const char* folder : {"models/nano", "models/demo", "data/tokenizer"}) {
    for (const auto& item : std::filesystem::directory_iterator(shared(folder))) {
      if (item.path().extension() != ".gguf") continue;
      CAPTURE(item.path().string());
      const auto start = std::chrono::steady_clock::now();
      const TensorDir dir = open_gguf(item.path());
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      CHECK(seconds.count() < 2.0);  // 0.02 s on a slow machine
      CHECK(dir.text("general.architecture") != nullptr);
      uint64_t end = 0;
      for (const auto& [name, tensor] : dir.tensors)
        end = std::max(end, tensor.offset + tensor.bytes);
      CHECK(end <= item.file_size());
      CHECK(item.file_size() - (end ? end : item.file_size()) < 32);
      ++models;
    }
  }
  CHECK(models == 12);

  const TensorDir vocabulary = open_gguf(shared("data/tokenizer/dsv4-vocab.gguf"));
  const auto strings = [&](const char* key) {
    return std::get<std::vector<std::string>>(vocabulary.metadata.at(key)).size();
  };
  CHECK(strings("tokenizer.ggml.tokens") == 129280);
  CHECK(strings("tokenizer.ggml.merges") == 127741);
  CHECK(vocabulary.tensors.empty());
}
