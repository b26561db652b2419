#include "cli/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>

#include "base/hash.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "engine/peaks.h"
#include "engine/sampler.h"
#include "offload/io/disk_probe.h"
#include "offload/machine/memory.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kTimedTokens = 4;  // decoded with a GPU's stages timed

// One phase of one repetition.
struct Timing {
  double seconds = 0;
  StageClock stages;
  CacheStats cache;              // where experts come through one
  std::vector<LayerUse> layers;  // of the cache
  double vram_hit_rate = 1;
};

struct Repetition {
  Timing prefill, decode;
  Peaks peaks;  // measured before and after
  double disk_peak_gb_s = 0;
};

struct StagePeaks {
  Peaks cpu;
  std::optional<GpuPeaks> gpu;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool is_on_host(Stage stage) {
  return stage == Stage::kHostExperts || stage == Stage::kHostLayers || stage == Stage::kSampling;
}

// What the CPU can read of a stage's weights.
double cpu_read_gb_s(Stage stage, const Peaks& cpu) {
  switch (stage) {
    case Stage::kRoutedExperts:
    case Stage::kHostExperts:
      return cpu.experts_gb_s;
    case Stage::kHostLayers:
      return cpu.read_gb_s;
    default:
      return cpu.dense_gb_s;
  }
}

class Bench {
 public:
  Bench(Engine& engine, const BenchWork& work)
      : engine_(engine), work_(work), tokens_(work.depth + work.prefill + work.decode) {}

  Repetition repeat(int64_t decode) {
    draw_tokens();
    const auto session = engine_.new_session();
    const std::span<const int32_t> tokens = tokens_;
    if (work_.depth > 0) session->feed(tokens.first(work_.depth));
    Repetition result;
    result.prefill = time([&] {
      if (work_.prefill > 0) hash_.add(session->feed(tokens.subspan(work_.depth, work_.prefill)));
    });
    result.decode = time([&] {
      for (int64_t i = 0; i < decode; ++i) {
        const auto logits = session->feed(tokens.subspan(work_.depth + work_.prefill + i, 1));
        hash_.add(logits);
        const StageTimer timer(engine_.clock()[Stage::kSampling]);
        sampler_.sample(logits, {});
      }
    });
    return result;
  }

  // `batch` sequences decode `steps` tokens each together, each `depth` tokens old, and one more
  // where there is a prompt.
  Timing decode_batch(int batch, int64_t steps) {
    draw_tokens();
    std::vector<std::unique_ptr<Session>> sessions;
    const std::span<const int32_t> tokens = tokens_;
    for (int b = 0; b < batch; ++b) {
      sessions.push_back(engine_.new_session());
      const int64_t old = work_.depth + std::min<int64_t>(work_.prefill, 1);
      if (old > 0) sessions.back()->feed(tokens.first(old));
    }
    std::vector<Feed> feeds(batch);
    return time([&] {
      for (int64_t i = 0; i < steps; ++i) {
        for (int b = 0; b < batch; ++b) {
          // Each sequence reads the tokens from a place of its own.
          const int64_t at = (i + b * work_.decode / batch) % work_.decode;
          feeds[b] = {sessions[b].get(), tokens.subspan(work_.depth + work_.prefill + at, 1)};
        }
        engine_.step(feeds, LogitRows::kLast);
      }
    });
  }

  uint64_t hash() const { return hash_.value(); }

 private:
  template <typename F>
  Timing time(F&& run) {
    engine_.clear_figures();
    const auto start = Clock::now();
    run();
    const double seconds = seconds_since(start);
    Timing timing{seconds, engine_.clock(), {}, {}, engine_.vram_hit_rate()};
    if (const ExpertCache* cache = engine_.cache()) {
      timing.cache = cache->stats();
      timing.layers.assign(cache->layer_uses().begin(), cache->layer_uses().end());
    }
    return timing;
  }

  // Others each time: a cache must not know them.
  void draw_tokens() {
    const auto vocab = static_cast<uint64_t>(engine_.config().vocab);
    for (int32_t& token : tokens_) token = static_cast<int32_t>(random_() % vocab);
  }

  Engine& engine_;
  const BenchWork& work_;
  std::mt19937_64 random_{1};
  std::vector<int32_t> tokens_;
  Sampler sampler_{SamplingOptions{}, engine_.kernels()};
  ResultHash hash_;
};

// The stages of one phase. A stage is held against the bandwidth where reading its bytes would take
// longer than its arithmetic, else against the matrix units: the GPU's or, where it is on the CPU,
// those.
void add_stages(Json& stages, const std::string& phase, const Timing& timing,
                const StagePeaks& peaks) {
  for (int s = 0; s < kStages; ++s) {
    const auto which = static_cast<Stage>(s);
    const StageTotals& totals = timing.stages[which];
    if (totals.seconds == 0) continue;
    Json stage = {{"phase", phase},
                  {"name", stage_name(which)},
                  {"ms", totals.seconds * 1e3},
                  {"share_of_time", totals.seconds / timing.seconds}};
    double read_gb_s = cpu_read_gb_s(which, peaks.cpu);
    double matmul_gflop_s = peaks.cpu.matmul_gflop_s;
    if (peaks.gpu && !is_on_host(which)) {
      read_gb_s = peaks.gpu->read_gb_s;
      matmul_gflop_s = peaks.gpu->matmul_gflop_s;
    }
    const double gb_s = static_cast<double>(totals.bytes) / totals.seconds * 1e-9;
    const double gflop_s = static_cast<double>(totals.flops) / totals.seconds * 1e-9;
    if (gb_s / read_gb_s >= gflop_s / matmul_gflop_s) {
      stage["gb_s"] = gb_s;
      stage["share_of_peak"] = gb_s / read_gb_s;
    } else {
      stage["gflop_s"] = gflop_s;
      stage["share_of_peak"] = gflop_s / matmul_gflop_s;
    }
    stages.push_back(stage);
  }
}

// The repetition with the median time of a phase; of an even number the slower one in the middle.
const Repetition& median_of(const std::vector<Repetition>& repetitions, Timing Repetition::*phase) {
  std::vector<const Repetition*> order;
  for (const Repetition& repetition : repetitions) order.push_back(&repetition);
  std::ranges::sort(order, {}, [&](const Repetition* r) { return (r->*phase).seconds; });
  return *order[order.size() / 2];
}

// Of random reads of the model's file; 0 where none are made.
double disk_peak_gb_s(const Engine& engine) {
  if (engine.cache() == nullptr) return 0;
  return probe_file(largest_file(engine.tensors())).read_gb_s;
}

Json hit_rates(const std::vector<LayerUse>& layers) {
  Json rates = Json::array();
  for (const LayerUse& layer : layers) {
    rates.push_back(
        layer.uses > 0 ? static_cast<double>(layer.hits) / static_cast<double>(layer.uses) : 1);
  }
  return rates;
}

Json guess_precisions(const Engine& engine) {
  Json shares = Json::array();
  if (engine.cache() == nullptr) return shares;
  for (int32_t layer = 0; layer < engine.config().layers; ++layer) {
    shares.push_back(engine.guess_precision(layer));
  }
  return shares;
}

std::vector<Repetition> repeat(Engine& engine, Bench& bench, const BenchWork& work) {
  PeakProbe probe(engine);
  Peaks before = probe.measure();
  double disk_before = disk_peak_gb_s(engine);
  ProgressBar bar("Measuring");
  std::vector<Repetition> repetitions;
  for (int r = 0; r < work.repeats; ++r) {
    repetitions.push_back(bench.repeat(work.decode));
    const Peaks after = probe.measure();
    repetitions.back().peaks = max(before, after);
    before = after;
    const double disk_after = disk_peak_gb_s(engine);
    repetitions.back().disk_peak_gb_s = std::max(disk_before, disk_after);
    disk_before = disk_after;
    bar.show(r + 1, work.repeats);
  }
  return repetitions;
}

// What the phases of a GPU say of their stages, and what launches cost: a token's stages on the
// device beside the whole token with and without timing.
void add_gpu(Json& result, Engine& engine, const Repetition& timed, int64_t tokens,
             const GpuPeaks& gpu, double vram_hit_rate) {
  double seconds = 0;
  for (int s = 0; s < kStages; ++s) {
    const auto stage = static_cast<Stage>(s);
    if (!is_on_host(stage)) seconds += timed.decode.stages[stage].seconds;
  }
  const double ms_per_token = 1e3 / static_cast<double>(tokens);
  result.update({{"gpu", engine.gpu()->name()},
                 {"gpu_read_peak_gb_s", gpu.read_gb_s},
                 {"gpu_matmul_peak_gflop_s", gpu.matmul_gflop_s},
                 {"vram_hit_rate", vram_hit_rate},
                 {"timed_decode_tokens", tokens},
                 {"timed_decode_ms", timed.decode.seconds * ms_per_token},
                 {"timed_decode_gpu_ms", seconds * ms_per_token}});
}

}  // namespace

Json bench(Engine& engine, const BenchWork& work, const std::optional<GpuPeaks>& gpu) {
  Bench bench(engine, work);
  const std::vector<Repetition> repetitions = repeat(engine, bench, work);
  const uint64_t hash = bench.hash();
  const Repetition& decode = median_of(repetitions, &Repetition::decode);
  const Repetition& prefill = median_of(repetitions, &Repetition::prefill);
  const CacheStats& cache = decode.decode.cache;
  const double steps = static_cast<double>(std::max<int64_t>(work.decode, 1));
  const double bytes_per_token = static_cast<double>(decode.decode.stages.bytes()) / steps;
  const double decode_tok_s = static_cast<double>(work.decode) / decode.decode.seconds;
  Json result = {{"plan", format_hash(engine.plan().hash())},
                 {"planned_bytes", engine.plan().total_bytes()},
                 {"isa", engine.kernels().name},
                 {"threads", engine.workers().threads()},
                 {"prefill_tokens", work.prefill},
                 {"prefill_tok_s", static_cast<double>(work.prefill) / prefill.prefill.seconds},
                 {"decode_tokens", work.decode},
                 {"decode_tok_s", decode_tok_s},
                 {"depth", work.depth},
                 {"decode_bytes_per_token", bytes_per_token},
                 {"decode_gb_s", bytes_per_token * decode_tok_s * 1e-9},
                 {"read_peak_gb_s", decode.peaks.read_gb_s},
                 {"read_peak_dense_gb_s", decode.peaks.dense_gb_s},
                 {"read_peak_experts_gb_s", decode.peaks.experts_gb_s},
                 {"matmul_peak_gflop_s", prefill.peaks.matmul_gflop_s},
                 {"disk_bytes_per_token", static_cast<double>(cache.reads.bytes) / steps},
                 {"disk_gb_s", cache.disk_gb_s()},
                 {"disk_peak_gb_s", decode.disk_peak_gb_s},
                 {"disk_wait_share", cache.reads.wait_seconds / decode.decode.seconds},
                 {"expert_hit_rate", cache.hit_rate()},
                 {"expert_hit_rate_by_layer", hit_rates(decode.decode.layers)},
                 {"guess_precision_by_layer", guess_precisions(engine)},
                 {"foreseen_rate", cache.foreseen_rate()},
                 {"prefill_disk_bytes", prefill.prefill.cache.reads.bytes},
                 {"prefill_disk_gb_s", prefill.prefill.cache.disk_gb_s()}};
  const StagePeaks prefill_peaks{prefill.peaks, gpu}, decode_peaks{decode.peaks, gpu};
  const int64_t timed_tokens = std::min(kTimedTokens, work.decode);
  Json batches = Json::array(), stages = Json::array();
  if (gpu) {
    engine.set_timing(true);
    const Repetition timed = bench.repeat(timed_tokens);
    engine.set_timing(false);
    add_stages(stages, "prefill", timed.prefill, prefill_peaks);
    add_stages(stages, "decode", timed.decode, decode_peaks);
    add_gpu(result, engine, timed, timed_tokens, *gpu, decode.decode.vram_hit_rate);
  } else {
    add_stages(stages, "prefill", prefill.prefill, prefill_peaks);
    add_stages(stages, "decode", decode.decode, decode_peaks);
  }
  for (const int batch : work.batches) {
    std::vector<Timing> timings;
    for (int r = 0; r < work.repeats; ++r)
      timings.push_back(bench.decode_batch(batch, work.decode));
    std::ranges::sort(timings, {}, &Timing::seconds);
    Timing middle = timings[timings.size() / 2];
    batches.push_back(
        {{"batch", batch},
         {"decode_tok_s", static_cast<double>(work.decode * batch) / middle.seconds}});
    engine.set_timing(gpu.has_value());
    if (gpu) middle = bench.decode_batch(batch, timed_tokens);
    engine.set_timing(false);
    add_stages(stages, fmt::format("{} at once", batch), middle, decode_peaks);
  }
  result.update({{"peak_rss_bytes", peak_resident_bytes()},
                 {"result_hash", format_hash(hash)},
                 {"batches", batches},
                 {"stages", stages}});
  return result;
}

}  // namespace hearth::cli
