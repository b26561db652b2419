// The bench's report of an engine with a GPU, the fake one.
#include "cli/bench.h"

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "device/fake_device.h"
#include "planned.h"
#include "support.h"

using namespace hearth;

namespace {

// With all layers on the GPU and half of their experts, or with a part of the layers.
void check_stages(bool is_split) {
  CAPTURE(is_split);
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.context = 16;
  options.threads = 1;
  options.sessions = 8;  // a part of the layers pays with several
  options.gpu_budget = int64_t{1} << 30;
  options.open_gpu = [] { return FoundDevice{make_fake_device(), ""}; };
  {
    const Plan whole = test::plan_of(options);
    REQUIRE(whole.placement.uses_gpu());
    options.gpu_budget = whole.vram.used - (is_split ? whole.routed_bytes : whole.routed_bytes / 2);
  }
  const auto engine = Engine::open(options);
  REQUIRE(engine->gpu() != nullptr);
  CHECK((engine->plan().placement.gpu_layers < engine->config().layers) == is_split);
  const GpuPeaks peaks{.read_gb_s = 1000, .matmul_gflop_s = 1e6};
  const cli::BenchWork work{.prefill = 2, .decode = 3, .depth = 0, .repeats = 1, .batches = {2}};
  const nlohmann::ordered_json result = cli::bench(*engine, work, peaks);

  CHECK(result["gpu"] == engine->gpu()->name());
  CHECK(result["gpu_read_peak_gb_s"] == 1000);
  CHECK(result["vram_hit_rate"].get<double>() > 0);
  // Of few layers VRAM may have all experts.
  const Plan& plan = engine->plan();
  const int64_t of_its_layers = int64_t{plan.placement.gpu_layers} * engine->config().experts;
  const bool holds_all = plan.vram.experts == of_its_layers;
  CHECK((result["vram_hit_rate"].get<double>() < 1) == !holds_all);
  CHECK(result["timed_decode_gpu_ms"].get<double>() > 0);
  CHECK(result["timed_decode_gpu_ms"].get<double>() < result["timed_decode_ms"].get<double>());
  std::map<std::string, int> stages;
  double bytes = 0;  // of a decoded token
  for (const auto& stage : result["stages"]) {
    ++stages[stage["phase"].get<std::string>()];
    if (stage["phase"] != "decode" || !stage.contains("gb_s")) continue;
    const double read = stage["gb_s"].get<double>() * stage["ms"].get<double>() * 1e6 / 3;
    bytes += read;
    // On the CPU's own peak, not the GPU's.
    const double peak = stage["gb_s"].get<double>() / stage["share_of_peak"].get<double>();
    const bool is_on_host = stage["name"] == "host_experts" || stage["name"] == "host_layers";
    if (read > 0) CHECK((peak == doctest::Approx(1000)) != is_on_host);
  }
  const int all = kStages - (is_split ? 0 : 1) - (holds_all ? 1 : 0);
  CHECK(stages["decode"] == all);
  CHECK(stages["prefill"] == all - 1);  // nothing is sampled
  CHECK(stages["2 at once"] == all - 1);
  CHECK(bytes > 0);
  CHECK(bytes <= 1.001 * result["decode_bytes_per_token"].get<double>());
}

}  // namespace

TEST_CASE("bench shows every stage on a GPU, and those on the CPU beside it") {
  for (const bool is_split : {false, true}) check_stages(is_split);
}
