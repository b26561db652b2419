// The tables of gpu_kernels_bench, small, on the fake device: what they hand the kernels must be
// right before they run on hardware.
#include <doctest/doctest.h>

#include <cmath>

#include "base/error.h"
#include "device/fake_device.h"
#include "format/dequantize.h"
#include "gpu_kernels/bench/random_data.h"
#include "gpu_kernels/bench/tables.h"

using namespace hearth;
using namespace hearth::bench;

TEST_CASE("every table measures all its rows") {
  const auto device = make_fake_device();
  Bench bench(*device, tiny_sizes());
  for (const NamedTable& named : kTables) {
    CAPTURE(named.name);
    const Table table = named.measure(bench);
    CHECK(table.name == named.name);
    CHECK(table.rows.size() >= 5);
    for (const Row& row : table.rows) {
      CAPTURE(row.what);
      REQUIRE_FALSE(row.values.empty());
      CHECK(row.values.front().second > 0);
      for (const auto& [name, value] : row.values) {
        CAPTURE(name);
        CHECK(std::isfinite(value));
        CHECK(value > 0);
      }
    }
    CHECK(as_json(table)["rows"].size() == table.rows.size());
  }
}

TEST_CASE("results that nobody wrote are an error") {
  const auto device = make_fake_device();
  Bench bench(*device, tiny_sizes());
  Memory memory(bench);
  auto* out = memory.output<float>(300);
  CHECK_THROWS_AS(memory.check_outputs("nothing"), Error);
  bench.kernels().rms_norm({memory.floats(299), nullptr, 1, 1, 299, out, {}}, bench.handle());
  CHECK_THROWS_AS(memory.check_outputs("all but one"), Error);
  bench.kernels().rms_norm({memory.floats(300), nullptr, 1, 1, 300, out, {}}, bench.handle());
  memory.check_outputs("all");
}

TEST_CASE("copies of a matrix are as many as the walk needs") {
  const auto device = make_fake_device();
  Bench bench(*device, tiny_sizes());
  Memory memory(bench);
  const int64_t bytes = 34 * 5;
  const Copies copies = memory.copies(TensorType::kQ8_0, bytes, 1000);
  CHECK(copies.count == 6);
  CHECK(copies.at(7) == copies.data + bytes);
  std::vector<unsigned char> all(6 * bytes);
  device->copy_to_host(all.data(), copies.data, all.size(), bench.stream());
  device->synchronize();
  CHECK(all == random_weights(TensorType::kQ8_0, 6 * bytes));
}

TEST_CASE("random weights are finite and differ") {
  for (const TensorType type :
       {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0, TensorType::kQ2_K,
        TensorType::kQ3_K, TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K,
        TensorType::kIQ2_XXS, TensorType::kMXFP4, TensorType::kF8_E4M3}) {
    CAPTURE(std::string(type_info(type).name));
    const int64_t count = 40 * type_info(type).block_size;
    const auto bytes = random_weights(type, row_bytes(type, count));
    std::vector<float> values(count);
    dequantize(type, bytes.data(), count, values.data());
    double largest = 0, sum = 0;
    for (const float value : values) {
      CHECK(std::isfinite(value));
      largest = std::max(largest, std::abs(static_cast<double>(value)));
      sum += std::abs(value);
    }
    CHECK(largest > 0);
    CHECK(sum / static_cast<double>(count) < largest);
  }
}

TEST_CASE("random choices differ, are ascending and in range") {
  const std::vector<int32_t> choices = random_choices(3, 4, 5);
  REQUIRE(choices.size() == 12);
  for (size_t i = 0; i < choices.size(); ++i) {
    CHECK(choices[i] >= 0);
    CHECK(choices[i] < 5);
    if (i % 4 != 0) CHECK(choices[i] > choices[i - 1]);
  }
}

TEST_CASE("a table as text has a column for every value and a cell where a row has it") {
  const Table table{"peaks",
                    {{"first", "", 0, {{"us", 2.5}}}, {"second", "Q8_0", 8, {{"gb_s", 1234.56}}}},
                    {"a note"}};
  CHECK(as_text(table) ==
        "\npeaks\nwhat       type     n         us       gb_s\n"
        "first                      2.500           \n"
        "second     Q8_0     8                1234.6\na note\n");
  CHECK(as_json(table).dump() ==
        R"({"rows":[{"what":"first","us":2.5},{"what":"second","type":"Q8_0","n":8,)"
        R"("gb_s":1234.56}],"notes":["a note"]})");
}
