#include "cli/common.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>

#include "base/error.h"
#include "base/units.h"
#include "cli/progress.h"
#include "offload/machine/machine_json.h"
#include "offload/machine/topology.h"
#include "offload/plan/plan_json.h"
#include "offload/sim/trace_use.h"

namespace hearth::cli {
namespace {

void start_log(const std::string& level) {
  static const auto logger = spdlog::stderr_color_mt("hearth");
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(logger);
}

// Throws a usage Error.
int64_t parse_size(const std::string& text, const std::string& option) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1},         {"B", 1},        {"KiB", 1024.0}, {"MiB", 1048576.0}, {"kB", 1000.0},
      {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"MB", 1e6},     {"GB", 1e9},        {"TB", 1e12}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, text.data() + text.size() - end);
  for (const auto& [name, factor] : kUnits) {
    constexpr double kMost = 0x1p60;
    if (error != std::errc() || unit != name || !(number >= 0 && number * factor <= kMost))
      continue;
    return static_cast<int64_t>(number * factor);
  }
  throw usage_error(fmt::format("'{}' is no size", text), option,
                    "Write a number with KiB, MiB, GiB or TiB: 64GiB");
}

std::filesystem::path program_folder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

// What a person should know of an engine that was opened: what it follows and what it took.
void tell(const Engine& engine, const std::string& name, bool no_gpu) {
  const Plan& plan = engine.plan();
  spdlog::info("{}: {} of weights, {} layers, {} of context; {} kernels on {}", name,
               format_bytes(static_cast<double>(engine.weight_bytes())), engine.config().layers,
               counted(engine.context(), "token"), engine.kernels().name,
               engine.workers().shares().text());
  spdlog::info("plan {}: {} of a prompt at a time, {} of KV cache, {} of scratch",
               format_hash(plan.hash()), counted(engine.chunk_tokens(), "token"),
               format_bytes(static_cast<double>(plan.kv_bytes)),
               format_bytes(static_cast<double>(plan.scratch_bytes)));
  if (engine.gpu() != nullptr) {
    spdlog::info("{}: {} of {} layers, {} of weights with {} of {} experts, {} of KV cache",
                 engine.gpu()->name(), plan.placement.gpu_layers, engine.config().layers,
                 format_bytes(static_cast<double>(plan.vram.weights)), plan.vram.experts,
                 int64_t{engine.config().experts} * engine.config().layers,
                 format_bytes(static_cast<double>(plan.vram.kv)));
  } else if (!no_gpu) {
    spdlog::info("computing without a GPU: {}", engine.why_no_gpu());
  }
  if (engine.reads_files()) {
    spdlog::warn("the weights don't fit the memory: they are read from the file on use");
  }
  if (const ExpertCache* cache = engine.cache()) {
    spdlog::info(
        "{} of {} experts fit in memory, {}; the others are read from the file as they are "
        "wanted",
        cache->slots(), int64_t{engine.config().experts} * engine.config().layers,
        format_bytes(static_cast<double>(cache->bytes())));
  }
  const auto ordered = std::ranges::count_if(
      plan.layers, [](const LayerPlan& layer) { return !layer.order.empty(); });
  if (plan.divides_experts() && ordered > 0) {
    spdlog::info("experts in memory at first: in {} of {} layers those likely to be used most",
                 ordered, plan.layers.size());
  }
  for (const std::string& note : engine.notes()) spdlog::warn("{}", note);
}

}  // namespace

std::string not_empty(const std::string& name) {
  return name.empty() ? "names no file or folder" : "";
}

void add_model_argument(CLI::App& command, std::string& model) {
  command.add_option("MODEL", model, "GGUF file; the small demo model where absent")
      ->check(not_empty);
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  add_model_argument(command, options.model);
  command.add_option("--threads", options.threads, "Compute threads; 0: one a physical core")
      ->capture_default_str();
  command.add_option("--isa", options.isa,
                     "Kernels to use: amx, avx512, avx2, reference; the fastest where absent");
  add_kv_option(command, options.kv);
  add_size_option(command, "--ram-budget", options.ram_budget,
                  "Memory for weights and caches, 64GiB; what is free where absent");
  command.add_option("--machine", options.machine,
                     "Plan with the rates of this profile of this machine (hearth profile); "
                     "assumed ones where absent");
  CLI::Option* plan =
      command.add_option("--plan", options.plan, "Follow this plan (hearth plan MODEL --json)");
  command
      .add_option("--trace", options.trace,
                  "Routing recorded on a text (hearth trace): which experts are in memory at first "
                  "where not all are")
      ->excludes(plan);
  add_size_option(command, "--gpu-budget", options.gpu_budget,
                  "VRAM for weights and caches, 30GiB; what is free where absent");
  add_kv_budget_option(command, options.kv_budget);
  command.add_flag("--no-gpu", options.no_gpu, "Compute on the CPU only");
  command.add_option("--log-level", options.log_level, "What is told on standard error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
}

void add_kv_option(CLI::App& command, std::string& kv) {
  command.add_option("--kv", kv, "How cache rows are stored")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
}

void add_kv_budget_option(CLI::App& command, std::optional<int64_t>& bytes) {
  add_size_option(command, "--kv-budget", bytes,
                  "KV cache in VRAM, or without a GPU in RAM; on a GPU the rest spills to RAM");
}

KvType parse_kv(const std::string& name) { return name == "f32" ? KvType::kF32 : KvType::kBF16; }

void add_size_option(CLI::App& command, const std::string& name, std::optional<int64_t>& bytes,
                     const std::string& description) {
  command
      .add_option_function<std::string>(
          name, [&bytes, name](const std::string& text) { bytes = parse_size(text, name); },
          description)
      ->type_name("SIZE");
}

std::string whole_number(const std::string& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number >= 0) return "";
  return fmt::format("'{}' is not possible: give a whole number, 0 or more", text);
}

void add_context_option(CLI::App& command, int64_t& context) {
  command.add_option("--ctx", context, "Tokens of context; 0: the model's, at most 32768")
      ->check(whole_number, "TOKENS")
      ->capture_default_str();
}

std::filesystem::path model_path(const std::string& model) {
  if (!model.empty()) return model;
  const std::filesystem::path places[] = {
      program_folder() / "../share/hearth/demo.gguf",
      std::filesystem::path(HEARTH_SOURCE_MODELS) / "demo.gguf",
  };
  for (const std::filesystem::path& place : places) {
    if (std::filesystem::exists(place)) return std::filesystem::weakly_canonical(place);
  }
  throw Error("the demo model is not beside the program", "demo.gguf",
              "Name a model file: hearth COMMAND FILE.gguf");
}

std::filesystem::path known_model_path(const std::string& model) {
  const std::filesystem::path path = model_path(model);
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return path;
  throw Error("there is no such file", path.string(),
              "Name a GGUF file; flash and pro, as released, are known by these names");
}

std::unique_ptr<Engine> open_engine(const ModelOptions& options, const Limits& limits,
                                    const std::function<void(Device&)>& on_gpu) {
  start_log(options.log_level);
  ProgressBar bar("Loading");
  EngineOptions engine_options;
  engine_options.model = model_path(options.model);
  engine_options.threads = options.threads;
  engine_options.isa = options.isa;
  engine_options.kv = parse_kv(options.kv);
  engine_options.context = options.context;
  engine_options.sessions = options.sessions;
  engine_options.chunk_tokens = options.chunk_tokens;
  engine_options.ram_budget = options.ram_budget;
  engine_options.gpu_budget = options.gpu_budget;
  engine_options.kv_budget = options.kv_budget;
  engine_options.use_gpu = !options.no_gpu;
  if (!options.machine.empty()) engine_options.machine = read_machine(options.machine);
  if (!options.plan.empty()) {
    engine_options.plan = read_plan(options.plan);
    engine_options.plan_name = options.plan;
  }
  if (!options.trace.empty()) {
    engine_options.recorded = recorded_use(read_trace(options.trace), options.trace);
  }
  engine_options.limits = limits;
  if (on_gpu) {
    engine_options.open_gpu = [&on_gpu, open = engine_options.open_gpu] {
      FoundDevice found = open();
      if (found.device != nullptr) on_gpu(*found.device);
      return found;
    };
  }
  engine_options.on_load = [&](int64_t done, int64_t total) { bar.show(done, total); };
  std::unique_ptr<Engine> engine = Engine::open(engine_options);
  bar.clear();
  tell(*engine, engine_options.model.filename().string(), options.no_gpu);
  const int cores = Topology::of_this_machine().cores();
  if (!options.plan.empty() && engine->plan().threads > cores) {
    spdlog::warn(
        "{}: the plan has {} threads compute, this machine has {}: they wait for one "
        "another, and its predictions don't hold",
        options.plan, engine->plan().threads, counted(cores, "core"));
  }
  return engine;
}

std::string read_file(const std::string& path, uint64_t bytes_max) {
  std::ifstream file;
  if (path != "-") {
    if (std::filesystem::is_directory(path)) throw Error("is a folder", path, "Name a file");
    file.open(path, std::ios::binary);
    if (!file) throw Error("cannot be opened", path, "Check the name and the permissions");
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::string text;
  char block[1 << 16];
  while (in.read(block, sizeof block), in.gcount() > 0) {
    text.append(block, in.gcount());
    if (text.size() > bytes_max) {
      throw Error(fmt::format("is larger than {} bytes", bytes_max), path, "Give it in parts");
    }
  }
  return text;
}

std::vector<int32_t> read_token_ids(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<int32_t> ids;
  constexpr std::string_view kSpace = " \t\r\n";
  for (size_t at = text.find_first_not_of(kSpace); at != std::string::npos;
       at = text.find_first_not_of(kSpace, at)) {
    const size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    int32_t id = 0;
    const auto [parsed, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (error != std::errc() || parsed != text.data() + end) {
      throw Error(fmt::format("\"{:.40}\" is not a token id", text.substr(at, end - at)), path,
                  "Give whitespace-separated numbers");
    }
    ids.push_back(id);
    at = end;
  }
  if (ids.empty()) throw Error("holds no token ids", path, "Give whitespace-separated numbers");
  return ids;
}

void check_writable(const std::string& path) {
  std::error_code ignored;
  const bool existed = std::filesystem::exists(path, ignored);
  if (!std::ofstream(path, std::ios::binary | std::ios::app)) {
    throw Error("cannot be written", path, "Check the folder and the permissions");
  }
  if (!existed) std::filesystem::remove(path, ignored);
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  if (!out) throw Error("cannot be written", path, "Check the folder and the permissions");
  out << text;
  out.close();
  if (!out) throw Error("could not be written whole", path, "Check the free space of its disk");
}

std::string format_hash(uint64_t hash) { return fmt::format("0x{:016x}", hash); }

std::string format_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  for (; bytes >= 1000 && unit < 4; ++unit) bytes /= 1000;
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 2, kUnits[unit]);
}

}  // namespace hearth::cli
