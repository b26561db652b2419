// The bench's report of an engine with a GPU, the fake one.
#include "cli/bench.h"

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "device/fake_device.h"
#include "support.h"

using namespace hearth;

TEST_CASE("bench shows every stage on a GPU, and those on the CPU beside it") {
  EngineOptions options;
  options.model = test::models("demo.gguf");
  options.context = 16;
  options.threads = 1;
  options.gpu_budget = int64_t{1} << 30;
  options.open_gpu = [] { return FoundDevice{make_fake_device(), ""}; };
  {
    const auto whole = Engine::open(options);
    REQUIRE(whole->gpu() != nullptr);
    options.gpu_budget = whole->plan().vram.used - whole->plan().routed_bytes / 2;
  }
  const auto engine = Engine::open(options);
  REQUIRE(engine->gpu() != nullptr);
  const GpuPeaks peaks{.read_gb_s = 1000, .matmul_gflop_s = 1e6};
  const cli::BenchWork work{.prefill = 2, .decode = 3, .depth = 0, .repeats = 1, .batches = {2}};
  const nlohmann::ordered_json result = cli::bench(*engine, work, peaks);

  CHECK(result["gpu"] == engine->gpu()->name());
  CHECK(result["gpu_read_peak_gb_s"] == 1000);
  CHECK(result["vram_hit_rate"].get<double>() > 0);
  CHECK(result["vram_hit_rate"].get<double>() < 1);
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
    if (read > 0) CHECK((peak == doctest::Approx(1000)) == (stage["name"] != "host_experts"));
  }
  CHECK(stages["decode"] == kStages);
  CHECK(stages["prefill"] == kStages - 1);  // nothing is sampled
  CHECK(stages["2 at once"] == kStages - 1);
  CHECK(bytes > 0);
  CHECK(bytes <= 1.001 * result["decode_bytes_per_token"].get<double>());
}
