#include "cli/common.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <fstream>
#include <iostream>

#include "base/error.h"
#include "cli/progress.h"

namespace hearth::cli {
namespace {

void start_log(const std::string& level) {
  static const auto logger = spdlog::stderr_color_mt("hearth");
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(logger);
}

KvType parse_kv(const std::string& name) { return name == "f32" ? KvType::kF32 : KvType::kBF16; }

std::filesystem::path program_folder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace

void add_model_argument(CLI::App& command, std::string& model) {
  command.add_option("MODEL", model, "GGUF file; the small demo model where absent");
}

void add_model_options(CLI::App& command, ModelOptions& options) {
  add_model_argument(command, options.model);
  command.add_option("--threads", options.threads, "Compute threads; 0: one a physical core")
      ->capture_default_str();
  command.add_option("--isa", options.isa,
                     "Kernels to use: amx, avx512, avx2, reference; the fastest where absent");
  command.add_option("--kv", options.kv, "How cache rows are stored")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command.add_flag("--no-gpu")->description("Compute on the CPU only, as this version always does");
  command.add_option("--log-level", options.log_level, "What is told on standard error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
}

void add_context_option(CLI::App& command, ModelOptions& options) {
  command.add_option("--ctx", options.context, "Tokens of context; 0: the model's, at most 32768")
      ->check(CLI::NonNegativeNumber)
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

std::unique_ptr<Engine> open_engine(const ModelOptions& options, const Limits& limits) {
  start_log(options.log_level);
  ProgressBar bar("Loading");
  EngineOptions engine_options;
  engine_options.model = model_path(options.model);
  engine_options.threads = options.threads;
  engine_options.isa = options.isa;
  engine_options.kv = parse_kv(options.kv);
  engine_options.context = options.context;
  engine_options.limits = limits;
  engine_options.on_load = [&](int64_t done, int64_t total) { bar.show(done, total); };
  std::unique_ptr<Engine> engine = Engine::open(engine_options);
  bar.clear();
  spdlog::info("{}: {} of weights, {} layers, {} tokens of context; {} kernels on {} threads",
               engine_options.model.filename().string(),
               format_bytes(static_cast<double>(engine->weight_bytes())), engine->config().layers,
               engine->context(), engine->kernels().name, engine->workers().threads());
  if (!engine->holds_weights()) {
    spdlog::warn("the weights don't fit the free memory: they are read from the file on use");
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
