#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "offload/plan/plan_json.h"
#include "plan_case.h"
#include "support.h"

namespace hearth {
namespace {

using Json = nlohmann::ordered_json;

Plan some_plan() {
  Machine machine = test::small_machine();
  machine.gpus = {test::small_gpu()};
  PlanRequest request;
  request.work = {.context = 4096, .depth = 1000, .prompt = 500, .answer = 100, .parallel = 2};
  return make_plan(machine, test::small_model(6, 256, 34000), request);
}

// Writes `text` to a file and reads it as a plan; the message of the Error, if there is one.
std::string read_error(const std::string& text, Plan* plan = nullptr) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "plan.json";
  std::ofstream(path) << text;
  try {
    const Plan read = read_plan(path);
    if (plan != nullptr) *plan = read;
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("what was decided survives writing and reading") {
  const Plan plan = some_plan();
  REQUIRE(plan.fits());
  Plan read;
  REQUIRE(read_error(write_plan(plan), &read) == "");
  CHECK(read.hash() == plan.hash());
  CHECK(read.total_bytes() == plan.total_bytes());
  CHECK(read.vram.used == plan.vram.used);
  CHECK(read.ram.experts == plan.ram.experts);
  CHECK(read.layers.size() == plan.layers.size());
  CHECK(read.placement.chunk_tokens == plan.placement.chunk_tokens);
}

TEST_CASE("an order of experts survives, and must name each of the layer's experts once") {
  Plan plan = some_plan();
  for (LayerPlan& layer : plan.layers) {
    for (int32_t e = 255; e >= 0; --e) layer.order.push_back(e);
  }
  Plan read;
  REQUIRE(read_error(write_plan(plan), &read) == "");
  CHECK(read.hash() == plan.hash());
  CHECK(read.layers[5].order == plan.layers[5].order);
  std::swap(plan.layers[5].order[0], plan.layers[5].order[1]);
  CHECK(read.hash() != plan.hash());
  const Json good = Json::parse(write_plan(plan));
  for (const Json& bad : {Json(7), Json::array(), Json::object(), Json(std::vector<int>(256, 3)),
                          Json("order"), Json(nullptr)}) {
    Json json = good;
    json["layers"][2]["order"] = bad;
    CHECK(read_error(json.dump()).find("order must have each of the layer's 256 experts once") !=
          std::string::npos);
  }
  for (const Json& bad : {Json(256), Json(-1), Json(0.5), Json(1e300), Json("0")}) {
    Json json = good;
    json["layers"][2]["order"][9] = bad;
    CHECK(read_error(json.dump()).find("order must have") != std::string::npos);
  }
}

TEST_CASE("threads of several nodes survive, and must be all of the threads") {
  Plan plan = some_plan();
  CHECK_FALSE(Json::parse(write_plan(plan)).contains("node_threads"));
  plan.node_threads = {5, 0, 3};
  Plan read;
  REQUIRE(read_error(write_plan(plan), &read) == "");
  CHECK(read.node_threads == plan.node_threads);
  CHECK(read.hash() == plan.hash());
  for (const Json& bad : {Json(8), Json::object(), Json(std::vector<int>{4, 5}),
                          Json(std::vector<int>{9, -1}), Json({8, "0"}), Json(nullptr)}) {
    Json json = Json::parse(write_plan(plan));
    json["node_threads"] = bad;
    CHECK(read_error(json.dump()).find("node_threads must share out the 8 threads") !=
          std::string::npos);
  }
}

TEST_CASE("the keys that others read are there") {
  const Plan plan = some_plan();
  const Json json = Json::parse(write_plan(plan));
  for (const char* key : {"hash", "fits", "problems", "bytes", "tiers", "predict", "why"}) {
    CHECK(json.contains(key));
  }
  const Json& bytes = json["bytes"];
  CHECK(bytes["total"] == bytes["weights"].get<int64_t>() + bytes["kv"].get<int64_t>() +
                              bytes["scratch"].get<int64_t>());
  CHECK(bytes["routed_experts"].get<int64_t>() < bytes["weights"].get<int64_t>());
  int64_t experts = 0;
  for (const char* tier : {"vram", "ram", "nvme"}) {
    for (const char* key : {"budget", "used", "experts", "kv"}) {
      CHECK(json["tiers"][tier].contains(key));
    }
    experts += json["tiers"][tier]["experts"].get<int64_t>();
  }
  CHECK(experts == 6 * 256);
  for (const char* key : {"depth", "decode_tok_s", "decode_tok_s_low", "decode_tok_s_high",
                          "prefill_tok_s", "bottleneck"}) {
    CHECK(json["predict"].contains(key));
  }
}

TEST_CASE("a plan that doesn't fit says so and predicts nothing") {
  PlanRequest request;
  request.work = {.context = 4096, .depth = 0, .prompt = 0, .answer = 100};
  request.ram_budget = 1000;
  const Plan plan = make_plan(test::small_machine(), test::small_model(), request);
  const Json json = Json::parse(write_plan(plan));
  CHECK(json["fits"] == false);
  CHECK(json["problems"].size() == 2);
  CHECK(json["predict"].is_null());
}

TEST_CASE("a plan that doesn't fit, or whose bytes are not their sums, is not followed") {
  const Json good = Json::parse(write_plan(some_plan()));
  struct Case {
    const char* pointer;
    Json value;
    const char* expected;
  };
  for (const Case& c :
       {Case{"/fits", false, "/fits isn't true"}, Case{"/tiers/ram/kv", 1, "/tiers/ram/used is "},
        Case{"/tiers/vram/weights", 1, "/bytes/weights is "},
        Case{"/tiers/nvme/used", 1, "/tiers/nvme/used is 1, its parts are 0"},
        Case{"/tiers/ram/experts", 1, "/tiers/ram/experts is 1, its parts"},
        Case{"/bytes/total", 1, "/bytes/total is 1, its parts are"}}) {
    CAPTURE(c.pointer);
    Json json = good;
    json[Json::json_pointer(c.pointer)] = c.value;
    CHECK(read_error(json.dump()).find(c.expected) != std::string::npos);
  }
}

TEST_CASE("a changed, broken or foreign plan is refused, every fault named at once") {
  const std::string good = write_plan(some_plan());
  Json json = Json::parse(good);
  json["chunk_tokens"] = json["chunk_tokens"].get<int>() + 1;
  CHECK(read_error(json.dump()).find("its hash isn't that of its content") != std::string::npos);

  json = Json::parse(good);
  json["threads"] = 0;
  json["context"] = "long";
  json["tiers"]["ram"].erase("kv");
  json["layers"][2]["vram"] = -1;
  json["bytes"]["kv"] = 1e300;
  const std::string faults = read_error(json.dump());
  for (const char* part : {"threads must be from 1", "context is missing or no whole number",
                           "kv is missing or no whole number", "vram must be from 0"}) {
    CAPTURE(faults);
    CHECK(faults.find(part) != std::string::npos);
  }
  CHECK(faults.find("/tiers/ram/kv is missing") != std::string::npos);
  CHECK(faults.find("/layers/2/vram must be") != std::string::npos);
  json = Json::parse(good);
  json["tiers"].erase("ram");
  json["layers"][3] = 7;
  const std::string fewer = read_error(json.dump());
  CHECK(fewer.find("2 problems") != std::string::npos);  // nothing that merely follows
  CHECK(fewer.find("/tiers/ram is missing or no object") != std::string::npos);
  CHECK(fewer.find("/layers/3 is no object") != std::string::npos);
  CHECK(read_error("").find("is no JSON object") != std::string::npos);
  CHECK(read_error("[1, 2]").find("is no JSON object") != std::string::npos);
  CHECK(read_error("{}").find("version is missing") != std::string::npos);
  CHECK(read_error(std::string(20 << 20, ' ')).find("too large") != std::string::npos);
  CHECK_THROWS_WITH_AS(read_plan("/no/such/plan.json"), doctest::Contains("cannot be read"), Error);
}

}  // namespace hearth
