// `hearth bench`: the options, and the report as text.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "cli/bench.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchOptions {
  ModelOptions model;
  BenchWork work;
  bool json = false;
};

void print_gpu(const Json& result) {
  fmt::print("{}: {:.2f} GB/s read, {:.0f} GFLOP/s matrix; {:.1f} % of picks in VRAM\n",
             result["gpu"].get<std::string>(), result["gpu_read_peak_gb_s"].get<double>(),
             result["gpu_matmul_peak_gflop_s"].get<double>(),
             100 * result["vram_hit_rate"].get<double>());
  fmt::print("a token takes {:.2f} ms, timed {:.2f} ms with {:.2f} ms of stages on the GPU\n",
             1e3 / result["decode_tok_s"].get<double>(), result["timed_decode_ms"].get<double>(),
             result["timed_decode_gpu_ms"].get<double>());
}

void print_text(const Json& result) {
  fmt::print("prefill  {:>6} tokens  {:>9.2f} tok/s\n", result["prefill_tokens"].get<int64_t>(),
             result["prefill_tok_s"].get<double>());
  const bool has_gpu = result.contains("gpu");
  // With a GPU two memories are read, each with a peak of its own.
  const std::string of_peak =
      has_gpu ? "" : fmt::format(" of {:.2f} GB/s", result["read_peak_gb_s"].get<double>());
  fmt::print("decode   {:>6} tokens  {:>9.2f} tok/s  {} a token, {:.2f} GB/s{}\n",
             result["decode_tokens"].get<int64_t>(), result["decode_tok_s"].get<double>(),
             format_bytes(result["decode_bytes_per_token"].get<double>()),
             result["decode_gb_s"].get<double>(), of_peak);
  for (const Json& batch : result["batches"]) {
    fmt::print("decode   {:>6} at once {:>9.2f} tok/s\n", batch["batch"].get<int>(),
               batch["decode_tok_s"].get<double>());
  }
  if (result["disk_bytes_per_token"].get<double>() > 0) {
    fmt::print(
        "experts  {:>5.1f} % at hand, {:.1f} % foreseen; disk {} a token at {:.2f} GB/s "
        "of {:.2f} GB/s, {:.1f} % of the time waiting for it\n",
        100 * result["expert_hit_rate"].get<double>(), 100 * result["foreseen_rate"].get<double>(),
        format_bytes(result["disk_bytes_per_token"].get<double>()),
        result["disk_gb_s"].get<double>(), result["disk_peak_gb_s"].get<double>(),
        100 * result["disk_wait_share"].get<double>());
  }
  fmt::print("\n{:<9} {:<22} {:>10} {:>7} {:>18} {:>8}\n", "phase", "stage", "ms", "share", "rate",
             "of peak");
  for (const Json& stage : result["stages"]) {
    const bool bytes = stage.contains("gb_s");
    const std::string rate = bytes ? fmt::format("{:.2f} GB/s", stage["gb_s"].get<double>())
                                   : fmt::format("{:.1f} GFLOP/s", stage["gflop_s"].get<double>());
    fmt::print("{:<9} {:<22} {:>10.2f} {:>6.1f}% {:>18} {:>7.1f}%\n",
               stage["phase"].get<std::string>(), stage["name"].get<std::string>(),
               stage["ms"].get<double>(), 100 * stage["share_of_time"].get<double>(), rate,
               100 * stage["share_of_peak"].get<double>());
  }
  fmt::print(
      "\npeaks: {:.2f} GB/s read ({:.2f} dense weights, {:.2f} experts), {:.0f} GFLOP/s "
      "matrix; peak memory {}; hash {}\n",
      result["read_peak_gb_s"].get<double>(), result["read_peak_dense_gb_s"].get<double>(),
      result["read_peak_experts_gb_s"].get<double>(), result["matmul_peak_gflop_s"].get<double>(),
      format_bytes(result["peak_rss_bytes"].get<double>()),
      result["result_hash"].get<std::string>());
  if (has_gpu) print_gpu(result);
}

void run_bench(BenchOptions options) {
  const BenchWork& work = options.work;
  const int64_t tokens = work.depth + work.prefill + work.decode;
  options.model.context = tokens;
  for (const int batch : work.batches) {
    options.model.sessions = std::max(options.model.sessions, batch);
  }
  std::optional<GpuPeaks> gpu;
  const auto engine = open_engine(options.model, {}, [&](Device& device) {
    gpu = measure_gpu_peaks(device);  // now, as later the model takes its memory
  });
  if (engine->gpu() == nullptr) gpu.reset();
  for (const int batch : work.batches) {
    if (batch < 1 || batch > engine->logit_rows()) {
      throw usage_error(fmt::format("{} sequences at once are not possible", batch), "--batch",
                        fmt::format("Choose 1 to {}", engine->logit_rows()));
    }
  }
  const Json result = bench(*engine, work, gpu);
  if (options.json) {
    fmt::print("{}\n", result.dump(1));
  } else {
    print_text(result);
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "Prefill and decode speed, stage by stage");
  add_model_options(*command, options->model);
  const auto tokens = CLI::Range(int64_t{0}, int64_t{1} << 30);
  command->add_option("-p,--prefill", options->work.prefill, "Tokens to prefill")
      ->check(tokens)
      ->capture_default_str();
  command->add_option("-n,--decode", options->work.decode, "Tokens to decode")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_option("-d,--depth", options->work.depth, "Tokens of context before both")
      ->check(tokens)
      ->capture_default_str();
  command->add_option("-r,--repeats", options->work.repeats, "Repetitions; medians are reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("--batch", options->work.batches,
                   "Also decode this many sequences at once: 1,2,4")
      ->delimiter(',');
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { run_bench(*options); });
}

}  // namespace hearth::cli
