// `hearth inspect`: what a model file holds, and whether it is a model this program can run.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "format/gguf.h"
#include "model/config.h"
#include "model/weights.h"

namespace hearth::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kItemsShown = 8;  // of a long array

// What kind of weights a tensor belongs to, by its name.
const char* kind_of(std::string_view name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (has("_exps.")) return "routed experts";
  if (has("_shexp.")) return "shared experts";
  if (has("nextn.")) return "drafter";
  if (has("indexer")) return "indexer";
  if (has("attn_compress")) return "compressors";
  if (has("hc_")) return "hyper-connections";
  if (has("ffn_gate_inp") || has("tid2eid") || has("exp_probs_b")) return "router";
  if (has("attn_")) return "attention";
  if (has("token_embd") || name.starts_with("output.")) return "embedding and head";
  return "norms and others";
}

template <typename T>
Json shorten(const std::vector<T>& values) {
  Json list = Json::array();
  for (size_t i = 0; i < std::min(values.size(), kItemsShown); ++i) list.push_back(values[i]);
  if (values.size() > kItemsShown) list.push_back(fmt::format("... {} in all", values.size()));
  return list;
}
Json shorten(const std::string& text) {
  constexpr size_t kBytesShown = 200;
  if (text.size() <= kBytesShown) return text;
  return text.substr(0, kBytesShown) + fmt::format("... {} bytes in all", text.size());
}
Json shorten(int64_t value) { return value; }
Json shorten(double value) { return value; }

Json metadata_json(const TensorDir& dir) {
  Json result = Json::object();
  for (const auto& [key, value] : dir.metadata) {
    result[key] = std::visit([](const auto& v) { return shorten(v); }, value);
  }
  return result;
}

Json tensors_json(const TensorDir& dir) {
  Json result = Json::array();
  for (const auto& [name, tensor] : dir.tensors) {
    result.push_back({{"name", name},
                      {"type", type_info(tensor.type).name},
                      {"dims", tensor.dims},
                      {"bytes", tensor.bytes},
                      {"file", dir.files[tensor.file].path.filename().string()},
                      {"offset", tensor.offset}});
  }
  return result;
}

// Bytes by kind of weights and by format.
Json totals_json(const TensorDir& dir) {
  Json kinds = Json::object(), types = Json::object();
  uint64_t total = 0;
  const auto add = [](Json& sums, const char* key, uint64_t bytes) {
    sums[key] = sums.value(key, uint64_t{0}) + bytes;
  };
  for (const auto& [name, tensor] : dir.tensors) {
    add(kinds, kind_of(name), tensor.bytes);
    add(types, type_info(tensor.type).name, tensor.bytes);
    total += tensor.bytes;
  }
  return {{"total", total}, {"by_kind", kinds}, {"by_type", types}};
}

void print_text(const Json& report) {
  for (const auto& [key, value] : report["metadata"].items()) {
    fmt::print("{:<48} {}\n", key, value.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  fmt::print("\n");
  for (const Json& tensor : report["tensors"]) {
    fmt::print("{:<44} {:<8} {:>12}  {}\n", tensor["name"].get<std::string>(),
               tensor["type"].get<std::string>(), format_bytes(tensor["bytes"].get<double>()),
               fmt::join(tensor["dims"].get<std::vector<int64_t>>(), " x "));
  }
  fmt::print("\n");
  for (const char* group : {"by_kind", "by_type"}) {
    for (const auto& [key, bytes] : report["bytes"][group].items()) {
      fmt::print("{:<20} {:>12}\n", key, format_bytes(bytes.get<double>()));
    }
  }
  fmt::print("{:<20} {:>12} in {} tensors\n", "total",
             format_bytes(report["bytes"]["total"].get<double>()), report["tensors"].size());
}

// A vocabulary-only file and a drafter's companion file are not models by themselves, but not
// broken either.
bool claims_to_be_a_model(const TensorDir& dir) {
  return !dir.tensors.empty() && dir.find("blk.0.attn_norm.weight") != nullptr;
}

void inspect(const std::string& model, bool json) {
  const std::filesystem::path path = model_path(model);
  const TensorDir dir = open_gguf(path);
  const Json report = {{"file", path.string()},
                       {"metadata", metadata_json(dir)},
                       {"tensors", tensors_json(dir)},
                       {"bytes", totals_json(dir)}};
  if (json) {
    fmt::print("{}\n", report.dump(1, ' ', false, Json::error_handler_t::replace));
  } else {
    print_text(report);
  }
  if (!claims_to_be_a_model(dir)) return;
  const ModelConfig config = read_config(dir, path.string());
  bind_weights(dir, config, path.string());
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct Options {
    std::string model;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Header, tensors and bytes of a model file; checks that it is whole");
  add_model_argument(*command, options->model);
  command->add_flag("--json", options->json, "One JSON document on standard output");
  command->callback([options] { inspect(options->model, options->json); });
}

}  // namespace hearth::cli
