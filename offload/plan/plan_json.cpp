#include "offload/plan/plan_json.h"

#include <fmt/format.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"

namespace hearth {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr uintmax_t kBytesMax = 16 << 20;

std::string hash_text(const Plan& plan) { return fmt::format("0x{:016x}", plan.hash()); }

// Those parts that there are, by name, in bytes.
template <typename Part, size_t N>
Json parts_json(const std::array<int64_t, N>& parts) {
  Json result = Json::object();
  for (size_t i = 0; i < N; ++i) {
    if (parts[i] > 0) result[part_name(static_cast<Part>(i))] = parts[i];
  }
  return result;
}

Json tier_json(const TierPlan& tier) {
  return {
      {"budget", tier.budget},   {"used", tier.used},
      {"weights", tier.weights}, {"experts", tier.experts},
      {"kv", tier.kv},           {"kv_parts", parts_json<KvPart>(tier.kv_parts)},
      {"scratch", tier.scratch}, {"scratch_parts", parts_json<ScratchPart>(tier.scratch_parts)}};
}

Json milliseconds_json(const std::array<double, kResources>& seconds) {
  Json result = Json::object();
  for (int r = 0; r < kResources; ++r) {
    if (seconds[r] > 0) result[resource_name(static_cast<Resource>(r))] = seconds[r] * 1e3;
  }
  return result;
}

Json predict_json(const Plan& plan) {
  const Prediction& predict = plan.predict;
  if (!plan.fits()) return nullptr;
  return {{"depth", plan.work.depth},
          {"prompt", plan.work.prompt},
          {"decode_tok_s", predict.decode_tok_s},
          {"decode_tok_s_low", predict.decode_tok_s_low},
          {"decode_tok_s_high", predict.decode_tok_s_high},
          {"prefill_tok_s", predict.prefill_tok_s},
          {"bottleneck", resource_name(predict.decode.bottleneck())},
          {"prefill_bottleneck", resource_name(predict.prefill.bottleneck())},
          {"vram_hit_rate", predict.vram_hit_rate},
          {"memory_hit_rate", predict.memory_hit_rate},
          {"decode_sent_share", predict.decode.sent_share()},
          {"prefill_sent_share", predict.prefill.sent_share()},
          {"decode_ms", milliseconds_json(predict.decode.seconds)},
          {"decode_beside_ms", milliseconds_json(predict.decode.beside)},
          {"prefill_ms", milliseconds_json(predict.prefill.seconds)},
          {"prefill_beside_ms", milliseconds_json(predict.prefill.beside)}};
}

Json layers_json(const Plan& plan) {
  Json layers = Json::array();
  for (const LayerPlan& layer : plan.layers) {
    Json json = {{"dense", layer.dense_in_vram ? "vram" : "ram"},
                 {"vram", layer.vram_experts},
                 {"ram", layer.ram_experts},
                 {"nvme", layer.nvme_experts}};
    if (!layer.order.empty()) json["order"] = layer.order;
    layers.push_back(std::move(json));
  }
  return layers;
}

// Reads fields and notes what is wrong with them, each with its JSON pointer.
class Reader {
 public:
  // `json` is null where the object itself is faulty, which is noted already.
  Reader(const Json* json, std::string pointer, Problems& problems)
      : json_(json), pointer_(std::move(pointer)), problems_(problems) {}

  int64_t integer(const char* key, int64_t least, int64_t most) const {
    const Json* found = find(key, &Json::is_number_integer, "no whole number");
    if (found == nullptr) return least;
    const bool fits = !found->is_number_unsigned() ||
                      found->get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()};
    const int64_t value = fits ? found->get<int64_t>() : std::numeric_limits<int64_t>::max();
    if (fits && value >= least && value <= most) return value;
    add(key, fmt::format("must be from {} to {}", least, most));
    return least;
  }
  int32_t count(const char* key, int32_t least) const {
    return static_cast<int32_t>(integer(key, least, std::numeric_limits<int32_t>::max()));
  }
  int64_t bytes(const char* key) const {
    return integer(key, 0, std::numeric_limits<int64_t>::max() / 4);
  }
  std::string text(const char* key) const {
    const Json* found = find(key, &Json::is_string, "no text");
    return found == nullptr ? "" : found->get<std::string>();
  }
  bool flag(const char* key) const {
    const Json* found = find(key, &Json::is_boolean, "neither true nor false");
    return found != nullptr && found->get<bool>();
  }
  Reader inner(const char* key) const {
    return {find(key, &Json::is_object, "no object"), at(key), problems_};
  }
  std::vector<Reader> list(const char* key) const {
    std::vector<Reader> items;
    const Json* found = find(key, &Json::is_array, "no list");
    for (size_t i = 0; found != nullptr && i < found->size(); ++i) {
      const Json& item = (*found)[i];
      items.push_back(
          {item.is_object() ? &item : nullptr, fmt::format("{}/{}", at(key), i), problems_});
      if (!item.is_object()) problems_.add(items.back().pointer_ + " is no object");
    }
    return items;
  }
  // Null where there is none.
  const Json* optional(const char* key) const {
    if (json_ == nullptr) return nullptr;
    const auto found = json_->find(key);
    return found == json_->end() ? nullptr : &*found;
  }
  void add(const char* key, const std::string& what) const { problems_.add(at(key) + " " + what); }

 private:
  const Json* find(const char* key, bool (Json::*is_right)() const noexcept,
                   const char* what_else) const {
    const Json* found = optional(key);
    if (found != nullptr && (found->*is_right)()) return found;
    if (json_ != nullptr) add(key, fmt::format("is missing or {}", what_else));
    return nullptr;
  }
  std::string at(const char* key) const { return pointer_ + "/" + key; }

  const Json* json_;
  std::string pointer_;
  Problems& problems_;
};

TierPlan read_tier(const Reader& reader) {
  return {reader.bytes("budget"),  reader.bytes("used"), reader.bytes("weights"),
          reader.bytes("experts"), reader.bytes("kv"),   reader.bytes("scratch")};
}

// Every expert of the layer once; empty where the layer has no order.
std::vector<int32_t> read_order(const Reader& layer, int64_t experts) {
  const Json* found = layer.optional("order");
  if (found == nullptr) return {};
  std::vector<int32_t> order;
  std::vector<bool> seen(found->is_array() ? found->size() : 0, false);
  for (size_t i = 0; i < seen.size(); ++i) {
    const Json& item = (*found)[i];
    const bool is_one = item.is_number_unsigned() && item.get<uint64_t>() < seen.size();
    if (!is_one || seen[item.get<size_t>()]) break;
    seen[item.get<size_t>()] = true;
    order.push_back(item.get<int32_t>());
  }
  if (std::ssize(order) == experts && order.size() == seen.size() && found->is_array())
    return order;
  layer.add("order", fmt::format("must have each of the layer's {} experts once", experts));
  return {};
}

// Absent on a machine of one node.
std::vector<int32_t> read_node_threads(const Reader& document, int32_t threads) {
  const Json* found = document.optional("node_threads");
  if (found == nullptr) return {};
  std::vector<int32_t> spread;
  int64_t sum = 0;
  for (const Json& item : *found) {
    const bool is_count = found->is_array() && item.is_number_unsigned() &&
                          item.get<uint64_t>() <= static_cast<uint64_t>(threads);
    if (!is_count) break;
    spread.push_back(item.get<int32_t>());
    sum += spread.back();
  }
  if (found->is_array() && spread.size() == found->size() && sum == threads) return spread;
  document.add("node_threads", fmt::format("must share out the {} threads", threads));
  return {};
}

void read_layers(const Reader& document, Plan& plan) {
  for (const Reader& reader : document.list("layers")) {
    LayerPlan layer = {reader.text("dense") == "vram",
                       reader.count("vram", 0),
                       reader.count("ram", 0),
                       reader.count("nvme", 0),
                       {}};
    const int64_t experts = int64_t{layer.vram_experts} + layer.ram_experts + layer.nvme_experts;
    layer.order = read_order(reader, experts);
    plan.layers.push_back(std::move(layer));
  }
}

Plan read_fields(const Reader& reader) {
  Plan plan;
  reader.integer("version", kVersion, kVersion);
  plan.model = reader.text("model");
  plan.machine = reader.text("machine");
  plan.isa = reader.text("isa");
  plan.kv = reader.text("kv");
  plan.threads = reader.count("threads", 1);
  plan.node_threads = read_node_threads(reader, plan.threads);
  plan.work.context = reader.integer("context", 1, int64_t{1} << 40);
  plan.work.parallel = reader.count("parallel", 1);
  plan.placement.chunk_tokens = reader.count("chunk_tokens", 1);
  plan.placement.gpu_layers = reader.count("gpu_layers", 0);
  plan.placement.entries_in_ram = reader.flag("entries_in_ram");
  const Reader bytes = reader.inner("bytes");
  plan.weight_bytes = bytes.bytes("weights");
  plan.routed_bytes = bytes.bytes("routed_experts");
  plan.kv_bytes = bytes.bytes("kv");
  plan.scratch_bytes = bytes.bytes("scratch");
  const Reader tiers = reader.inner("tiers");
  plan.vram = read_tier(tiers.inner("vram"));
  plan.ram = read_tier(tiers.inner("ram"));
  plan.nvme = read_tier(tiers.inner("nvme"));
  plan.placement.vram_experts = plan.vram.experts;
  plan.placement.ram_experts = plan.ram.experts;
  plan.placement.nvme_experts = plan.nvme.experts;
  read_layers(reader, plan);
  return plan;
}

// What must hold between the fields of a plan that can be followed; the hash is of what was decided
// and leaves these out.
void check_sums(const Reader& document, const Plan& plan) {
  if (!document.flag("fits"))
    document.add("fits", "isn't true: what doesn't fit can't be followed");
  const auto check = [&](const char* key, int64_t value, int64_t expected) {
    if (value == expected) return;
    document.add(key, fmt::format("is {}, its parts are {} in all", value, expected));
  };
  int64_t vram = 0, ram = 0, nvme = 0;
  for (const LayerPlan& layer : plan.layers) {
    vram += layer.vram_experts, ram += layer.ram_experts, nvme += layer.nvme_experts;
  }
  check("tiers/vram/experts", plan.vram.experts, vram);
  check("tiers/ram/experts", plan.ram.experts, ram);
  check("tiers/nvme/experts", plan.nvme.experts, nvme);
  const auto used = [](const TierPlan& tier) { return tier.weights + tier.kv + tier.scratch; };
  check("tiers/vram/used", plan.vram.used, used(plan.vram));
  check("tiers/ram/used", plan.ram.used, used(plan.ram));
  check("tiers/nvme/used", plan.nvme.used, used(plan.nvme));
  const auto sum = [&](int64_t TierPlan::*part) {
    return plan.vram.*part + plan.ram.*part + plan.nvme.*part;
  };
  check("bytes/weights", plan.weight_bytes, sum(&TierPlan::weights));
  check("bytes/kv", plan.kv_bytes, sum(&TierPlan::kv));
  check("bytes/scratch", plan.scratch_bytes, sum(&TierPlan::scratch));
  check("bytes/total", document.inner("bytes").bytes("total"), plan.total_bytes());
}

}  // namespace

std::string write_plan(const Plan& plan) {
  Json upgrades = Json::array();
  for (const Upgrade& upgrade : plan.upgrades) {
    upgrades.push_back({{"change", upgrade.change},
                        {"decode_tok_s", upgrade.decode_tok_s},
                        {"prefill_tok_s", upgrade.prefill_tok_s}});
  }
  Json json = {
      {"version", kVersion},
      {"hash", hash_text(plan)},
      {"fits", plan.fits()},
      {"problems", plan.problems},
      {"model", plan.model},
      {"machine", plan.machine},
      {"isa", plan.isa},
      {"threads", plan.threads},
      {"kv", plan.kv},
      {"context", plan.work.context},
      {"parallel", plan.work.parallel},
      {"chunk_tokens", plan.placement.chunk_tokens},
      {"gpu_layers", plan.placement.gpu_layers},
      {"entries_in_ram", plan.placement.entries_in_ram},
      {"bytes",
       {{"weights", plan.weight_bytes},
        {"routed_experts", plan.routed_bytes},
        {"kv", plan.kv_bytes},
        {"scratch", plan.scratch_bytes},
        {"total", plan.total_bytes()},
        {"program", plan.program_bytes}}},
      {"tiers",
       {{"vram", tier_json(plan.vram)},
        {"ram", tier_json(plan.ram)},
        {"nvme", tier_json(plan.nvme)}}},
      {"predict", predict_json(plan)},
      {"upgrades", upgrades},
      {"why", plan.why},
      {"layers", layers_json(plan)},
  };
  if (!plan.node_threads.empty()) json["node_threads"] = plan.node_threads;
  return json.dump(1);
}

Plan read_plan(const std::filesystem::path& path) {
  constexpr const char* kAdvice = "Make it again with hearth plan --json";
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) throw Error("cannot be read", path.string(), "Check the name");
  if (size > kBytesMax) throw Error("is too large for a plan", path.string(), kAdvice);
  std::ostringstream text;
  text << file.rdbuf();
  const Json json = Json::parse(text.str(), nullptr, false);
  if (!json.is_object()) throw Error("is no JSON object", path.string(), kAdvice);
  Problems problems(path.string());
  const Reader document(&json, "", problems);
  const Plan plan = read_fields(document);
  problems.throw_if_any(kAdvice);
  if (json.value("hash", Json()) != Json(hash_text(plan))) {
    throw Error("was changed: its hash isn't that of its content", path.string(), kAdvice);
  }
  check_sums(document, plan);
  problems.throw_if_any(kAdvice);
  return plan;
}

}  // namespace hearth
