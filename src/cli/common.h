// What commands share: the model argument, options of every command that computes, output helpers.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"

namespace hearth::cli {

// The options of a command that loads a model to compute with it.
struct ModelOptions {
  std::string model;  // empty: the demo model
  int threads = 0;
  std::string isa;
  std::string kv = "bf16";
  int64_t context = 0;
  int32_t sessions = 1;      // at once; set by the command
  int32_t chunk_tokens = 0;  // of a prompt taken at once; 0: the plan's choice
  std::optional<int64_t> ram_budget;
  std::optional<int64_t> gpu_budget;
  std::optional<int64_t> kv_budget;
  bool no_gpu = false;
  std::string machine;  // a file; empty: rates are assumed
  std::string plan;     // a file; empty: one is made
  std::string trace;    // recorded routing that this one follows; empty: none
  std::string log_level = "info";
};

// Checks of options: what is wrong with a value, empty where nothing is.
std::string whole_number(const std::string& text);  // 0 or more
std::string not_empty(const std::string& name);     // of a file or folder

void add_model_argument(CLI::App& command, std::string& model);
void add_model_options(CLI::App& command, ModelOptions& options);
// --ctx, for commands whose context doesn't follow from their input.
void add_context_option(CLI::App& command, int64_t& context);
void add_kv_option(CLI::App& command, std::string& kv);
void add_kv_budget_option(CLI::App& command, std::optional<int64_t>& bytes);
KvType parse_kv(const std::string& name);
// A number of bytes, with or without a unit: 64GiB.
void add_size_option(CLI::App& command, const std::string& name, std::optional<int64_t>& bytes,
                     const std::string& description);

// The file to open: `model`, or the demo model that came with the program. Throws Error where there
// is none.
std::filesystem::path model_path(const std::string& model);

// The same for commands that also know models by name; the Error says so.
std::filesystem::path known_model_path(const std::string& model);

// Opens the engine with a progress bar on standard error; throws Error. `on_gpu` is shown the GPU
// that may be used while nothing lies in its memory yet.
std::unique_ptr<Engine> open_engine(const ModelOptions& options, const Limits& limits = {},
                                    const std::function<void(Device&)>& on_gpu = nullptr);

// The whole file; throws Error naming it. "-" is standard input.
std::string read_file(const std::string& path, uint64_t bytes_max = uint64_t{1} << 30);
// Whitespace-separated token ids; throws Error that names the first thing that isn't one.
std::vector<int32_t> read_token_ids(const std::string& path);

// Before long work: throws Error where a file of this name can't be written; changes nothing.
void check_writable(const std::string& path);
// Throws Error where the file can't be written whole.
void write_file(const std::string& path, const std::string& text);

// "0x..." of 16 digits.
std::string format_hash(uint64_t hash);
// "1.29 GB": decimal units, as bandwidths are.
std::string format_bytes(double bytes);

}  // namespace hearth::cli
