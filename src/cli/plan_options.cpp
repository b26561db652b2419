#include "cli/plan_options.h"

#include <fmt/format.h>

#include "base/error.h"
#include "cli/common.h"
#include "cli/profiler.h"
#include "cpu_kernels/registry.h"
#include "engine/engine_plan.h"
#include "format/gguf.h"
#include "model/shape.h"
#include "offload/io/disk_probe.h"
#include "offload/machine/describe.h"
#include "offload/machine/machine_json.h"
#include "offload/machine/topology.h"
#include "offload/sim/trace_use.h"

namespace hearth::cli {
namespace {

constexpr double kDiskSeconds = 1;  // of reads of the model's file

bool is_released(const std::string& model) { return model == "flash" || model == "pro"; }

TensorDir header_of(const PlanOptions& options) {
  if (is_released(options.model)) {
    const std::string quant = options.quant.empty() ? "mxfp4" : options.quant;
    return released_header(options.model, quant, options.dense.empty() ? "fp8" : options.dense);
  }
  if (!options.quant.empty() || !options.dense.empty()) {
    throw usage_error("a file has its formats already", "--quant, --dense",
                      "Use them with flash or pro only");
  }
  return open_gguf(known_model_path(options.model));
}

// Kernels decide how activations are stored; those of another machine may not run here, but their
// tables tell.
const Kernels& kernels_named(const std::string& isa) {
  const Kernels* kernels = find_kernels(isa);
  return kernels != nullptr ? *kernels : choose_kernels("");
}

// The profile named, or this machine, measured and with the memory that is free.
Machine machine_of(const PlanOptions& options, const TensorDir& dir, PlanRequest& request) {
  if (!options.machine.empty()) return read_machine(options.machine);
  fmt::print(stderr,
             "Measuring this machine; hearth profile --out FILE keeps the result for --machine\n");
  MeasuredMachine measured = measure_this_machine({.quick = true, .disk = "", .threads = 0});
  for (const std::string& note : measured.notes) fmt::print(stderr, "{}\n", note);
  request.free_ram = free_ram_budget();
  if (!dir.files.empty()) {
    const std::filesystem::path& file = largest_file(dir);
    Disk disk = describe_disk(file.parent_path().empty() ? "." : file.parent_path(),
                              Topology::of_this_machine());
    disk.node = 0;
    disk.rates = {probe_file(file, kDiskSeconds)};
    measured.machine.disks = {disk};
    request.stored = true;
  }
  return measured.machine;
}

Workload workload_of(const PlanOptions& options, const ModelConfig& config) {
  Workload work = options.request.work;
  work.context = choose_context(options.context, config);
  work.depth = options.depth >= 0 ? options.depth : work.context;
  work.prompt = options.prompt >= 0 ? options.prompt : work.depth;
  work.answer = options.answer;
  if (work.depth > work.context || work.prompt > work.context) {
    throw usage_error(fmt::format("a context of {} tokens holds no depth of {} and prompt of {}",
                                  work.context, work.depth, work.prompt),
                      "--ctx, --depth, --prompt", "Choose a longer context");
  }
  return work;
}

}  // namespace

PlanCase plan_case(const PlanOptions& options) {
  const TensorDir dir = header_of(options);
  const std::string source = options.model.empty() ? "demo" : options.model;
  const ModelConfig config = read_config(dir, source);
  PlanCase result;
  PlanRequest& request = result.request;
  request = options.request;
  if (!options.trace.empty()) {
    request.recorded = recorded_use(read_trace(options.trace), options.trace);
    // Before this machine is measured.
    check_routing_shape(request.recorded->shape, options.trace,
                        {config.layers, config.experts, config.experts_used}, source);
  }
  result.machine = machine_of(options, dir, request);
  request.work = workload_of(options, config);
  request.kv = options.kv;
  request.use_gpu = !options.no_gpu;
  if (options.routing == "random") request.hits = HitCurve::of_random_picks();
  const std::vector<IsaRates>& isas = result.machine.cpu.isas;
  const std::string isa = request.isa.empty() && !isas.empty() ? isas.front().name : request.isa;
  result.shape = shape_of(dir, config, kernels_named(isa), parse_kv(options.kv));
  if (result.shape.name.empty()) result.shape.name = source;
  return result;
}

void add_plan_options(CLI::App& command, PlanOptions& options) {
  PlanRequest& request = options.request;
  const auto tokens = CLI::Range(int64_t{0}, int64_t{1} << 30);
  add_context_option(command, options.context);
  command.add_option("--depth", options.depth, "Tokens of context decoded at; the context's")
      ->check(tokens);
  command.add_option("--prompt", options.prompt, "Tokens of a request's prompt; the depth's")
      ->check(tokens);
  command
      .add_option("--answer", options.answer,
                  "Tokens of a request's answer: more of them weigh decode more")
      ->check(tokens)
      ->capture_default_str();
  command.add_option("--quant", options.quant,
                     "Of flash and pro: format of the routed experts, or q2; mxfp4 where absent");
  command.add_option("--dense", options.dense,
                     "Of flash and pro: format of attention and shared experts; fp8 where absent");
  add_kv_option(command, options.kv);
  command
      .add_option("--routing", options.routing,
                  "Which picks a cache meets: of text, or random ones as synthetic models make")
      ->check(CLI::IsMember({"text", "random"}))
      ->capture_default_str();
  command.add_option("--isa", request.isa, "Kernels to plan for; the profile's best where absent");
  command.add_option("--threads", request.threads, "Compute threads; 0: one a physical core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command
      .add_option("--chunk", request.chunk_tokens,
                  "Prompt tokens taken at once; 0: the planner's choice")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  command.add_flag("--no-gpu", options.no_gpu, "Plan without a GPU");
  add_size_option(command, "--ram-budget", request.ram_budget,
                  "Memory for weights and caches: 64GiB");
  add_size_option(command, "--gpu-budget", request.gpu_budget, "VRAM for weights and caches");
  add_kv_budget_option(command, request.kv_budget);
}

}  // namespace hearth::cli
