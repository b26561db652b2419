// JSON in the form of Python's json.dumps(ensure_ascii=False).
#include "text/json_text.h"

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "base/error.h"

using namespace hearth;

namespace {

// Parsed and written again; "invalid" where it is not JSON.
std::string again(const std::string& text) {
  const auto value = parse_json(text);
  return value ? prompt_json(*value) : "invalid";
}

}  // namespace

TEST_CASE("numbers are written as Python does") {
  for (const auto& [text, expected] : std::initializer_list<std::pair<const char*, const char*>>{
           {"0", "0"},
           {"-0", "0"},
           {"-7", "-7"},
           {"9223372036854775808", "9223372036854775808"},
           {"-9223372036854775809", "-9223372036854775809"},
           {"12345678901234567890123", "12345678901234567890123"},
           {"2.50", "2.5"},
           {"1.0", "1.0"},
           {"-0.0", "-0.0"},
           {"1e5", "100000.0"},
           {"1E15", "1000000000000000.0"},
           {"1e16", "1e+16"},
           {"123456789012345680.0", "1.2345678901234568e+17"},
           {"0.0001", "0.0001"},
           {"0.00001", "1e-05"},
           {"0.00012345", "0.00012345"},
           {"123.456", "123.456"},
           {"1e100", "1e+100"},
           {"5e-324", "5e-324"},
           {"1e-400", "0.0"},
           {"0.1", "0.1"},
           {"1.7976931348623157e308", "1.7976931348623157e+308"},
           {"1e400", "Infinity"},
           {"[-1e999, 1.79769313486231570000000000000000e+308, 2e999]",
            "[-Infinity, 1.7976931348623157e+308, Infinity]"}}) {
    CAPTURE(text);
    CHECK(again(text) == expected);
  }
  const std::string digits = "1" + std::string(400, '0');
  CHECK(again("[" + digits + ", -" + digits + "]") == "[" + digits + ", -" + digits + "]");
  for (const char* bad : {"01e999", "1.e999", "-.5e999", ".5", "1e999e9", "+1", "1e", "-", "NaN",
                          "1.79769313486231570000000000000000e+308.5"}) {
    CHECK(again(bad) == "invalid");
  }
}

TEST_CASE("strings are escaped no more than needed") {
  CHECK(again(R"("\u00e9\/<&\u2028\u007f\ud83d\ude42")") == "\"é/<&\u2028\x7f🙂\"");
  CHECK(again(R"("\"\\\b\t\n\f\r\u0000\u001F")") == R"("\"\\\b\t\n\f\r\u0000\u001f")");
  CHECK(again(R"("a\ud800z\udc00\ud800\ud800\udc00")") == "\"a\uFFFDz\uFFFD\uFFFD\U00010000\"");
  CHECK(again(R"("\\ud800 1e999 \" 1e999")") == R"("\\ud800 1e999 \" 1e999")");
  CHECK(again("\"\xFF\"") == "invalid");
  CHECK(again(R"("\ud8)") == "invalid");
  CHECK(again("\"\\") == "invalid");
}

TEST_CASE("objects keep their order; a repeated member its first place and last value") {
  CHECK(again(R"( {"b":1,"a":[ ],"c":{},"b":{"x":null,"x":true}} )") ==
        R"({"b": {"x": true}, "a": [], "c": {}})");
  CHECK(again("[1,[2,[]],false]") == "[1, [2, []], false]");
  for (const char* bad : {"", "[1,]", "{\"a\"}", "[1] 2", "{", "[1e5"})
    CHECK(again(bad) == "invalid");
}

TEST_CASE("hostile documents: deep ones are refused, wide ones are quick") {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  CHECK(again(nested(kJsonDepthMax)) == nested(kJsonDepthMax));
  CHECK(again(nested(kJsonDepthMax + 1)) == "invalid");
  CHECK(again(std::string(1000000, '[')) == "invalid");
  nlohmann::ordered_json deep = 1;
  for (int i = 0; i < kJsonDepthMax + 1; ++i)
    deep = nlohmann::ordered_json::array({std::move(deep)});
  CHECK_THROWS_AS(prompt_json(deep), Error);

  std::string wide = "{\"k\":0";
  for (int i = 0; i < 200000; ++i) wide += ",\"k" + std::to_string(i) + "\":1e999";
  CHECK(again(wide + "}").size() > wide.size());
}
