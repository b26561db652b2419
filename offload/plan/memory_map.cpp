#include "offload/plan/memory_map.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/limits.h"

namespace hearth {
namespace {

// Code, and by token of the vocabulary the tokenizer's tables.
constexpr int64_t kProgramBytes = int64_t{64} << 20, kTokenBytes = 640;

int64_t largest_expert(const ModelShape& model) {
  return std::ranges::max_element(model.layers, {}, &LayerShape::expert_bytes)->expert_bytes;
}

// Of experts that come over the link in prompts.
int64_t sent_bytes(const ModelShape& model) {
  if (model.gpu.sent_bytes > 0) return model.gpu.sent_bytes;
  return Limits{}.experts_sent * largest_expert(model);
}

int64_t slots_in(int64_t bytes, int64_t slot) {
  return std::max<int64_t>(bytes, 0) / std::max<int64_t>(slot, 1);
}
int64_t room(const TierPlan& tier) { return tier.budget - tier.used; }

void add_weights(TierPlan& tier, int64_t bytes) { tier.weights += bytes, tier.used += bytes; }
void add_kv(TierPlan& tier, KvPart part, int64_t bytes) {
  tier.kv += bytes, tier.used += bytes;
  tier.kv_parts[static_cast<int>(part)] += bytes;
}
void add_scratch(TierPlan& tier, ScratchPart part, int64_t bytes) {
  tier.scratch += bytes, tier.used += bytes;
  tier.scratch_parts[static_cast<int>(part)] += bytes;
}

// As many of `wanted` experts as there is room for: all of the model's as they lie in their files,
// so that those in VRAM can change places with the others; else in slots, of which a token's
// experts need one each.
void place_in_ram(const ModelShape& model, int64_t wanted, TierPlan& ram, Placement& placement) {
  placement.ram_experts = 0;
  if (wanted == 0) return;
  const PaddingBytes paddings = model.padding_beside(placement.gpu_layers);
  const int64_t padding = paddings.with_experts - paddings.without_experts;
  const int64_t program = program_bytes(model);
  const int64_t free = room(ram) - program;
  if (model.routed_bytes() + padding <= free) {
    placement.ram_experts = wanted;
    add_scratch(ram, ScratchPart::kPadding, padding);
    return;
  }
  const int64_t slots = slots_in(free, model.slot_bytes);
  const int64_t least = std::min<int64_t>(model.experts_used, wanted - 1);
  placement.ram_experts = slots < least ? 0 : std::min(slots, wanted - 1);
  if (slots < least) {
    add_scratch(ram, ScratchPart::kExpertRoom, least * model.slot_bytes);
    add_scratch(ram, ScratchPart::kProgram, program);
  }
}

// Spreads `count` experts over layers `begin` .. so that all hold as evenly many as they can,
// counting what they have; none holds more than `most`.
void level(int64_t count, int64_t begin, int64_t most, const std::vector<int64_t>& has,
           std::vector<int64_t>& given) {
  const auto layers = static_cast<int64_t>(has.size());
  auto filled_to = [&](int64_t height) {
    int64_t sum = 0;
    for (int64_t i = begin; i < layers; ++i) sum += std::max<int64_t>(height - has[i], 0);
    return sum;
  };
  int64_t height = 0;  // the highest that all can be filled to
  for (int64_t above = most + 1; above - height > 1;) {
    const int64_t middle = (height + above) / 2;
    (filled_to(middle) <= count ? height : above) = middle;
  }
  int64_t rest = count - filled_to(height);
  for (int64_t i = begin; i < layers; ++i) {
    given[i] = std::max<int64_t>(height - has[i], 0);
    if (rest > 0 && has[i] + given[i] < most && height >= has[i]) ++given[i], --rest;
  }
}

// A layer's experts, those of the most use first.
std::vector<int32_t> by_use(const std::vector<double>& use) {
  std::vector<int32_t> order(use.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](int32_t expert) { return use[expert]; });
  return order;
}

}  // namespace

int64_t program_bytes(const ModelShape& model) { return kProgramBytes + kTokenBytes * model.vocab; }

ChunkBytes chunk_bytes(const ModelShape& model, const Workload& work, int32_t chunk_tokens,
                       int32_t threads) {
  const int64_t context = work.context;
  const size_t counts = model.layers.size() + 1;
  ChunkBytes bytes{chunk_tokens,
                   model.kv_bytes(context, chunk_tokens),
                   model.scratch_bytes(context, chunk_tokens, threads),
                   {},
                   {}};
  for (const bool entries_in_ram : {false, true}) {
    std::vector<int64_t>& scratch = bytes.device_scratch[entries_in_ram];
    scratch = model.gpu.vram_bytes
                  ? model.gpu.vram_bytes(context, chunk_tokens, work.parallel, entries_in_ram)
                  : std::vector<int64_t>(counts, model.scratch_bytes(context, chunk_tokens, 1));
    for (int64_t& one : scratch) one += kGpuContextBytes;
  }
  bytes.beside_gpu = model.gpu.ram_bytes ? model.gpu.ram_bytes(context, chunk_tokens)
                                         : std::vector<int64_t>(counts, bytes.scratch);
  return bytes;
}

int64_t kv_over_budget(const MemoryMap& map, const Placement& placement,
                       std::optional<int64_t> kv_budget) {
  const int64_t kv = placement.uses_gpu() ? map.vram.kv : map.ram.kv;
  return std::max<int64_t>(kv - kv_budget.value_or(kv), 0);
}

MemoryMap map_fixed(const ModelShape& model, const ChunkBytes& chunk, const Placement& placement,
                    int32_t parallel, int64_t vram_budget, int64_t ram_budget) {
  MemoryMap map;
  map.vram.budget = vram_budget;
  map.ram.budget = ram_budget;
  const auto layers = static_cast<int32_t>(model.layers.size());
  for (int32_t i = 0; i < layers; ++i) {
    const bool on_gpu = placement.on_gpu(i, layers);
    TierPlan& tier = on_gpu ? map.vram : map.ram;
    const KvBytes& kv = chunk.kv[i];
    add_weights(tier, model.layers[i].dense_bytes);
    add_kv(tier, KvPart::kWindow, parallel * kv.window);
    add_kv(tier, KvPart::kIndexKeys, parallel * kv.index);
    add_kv(tier, KvPart::kCarried, parallel * kv.carried);
    const bool selects = model.layers[i].selects_rows();
    add_kv(placement.entries_in_ram && selects ? map.ram : tier,
           selects ? KvPart::kCsaRows : KvPart::kHcaRows, parallel * kv.entries);
  }
  add_weights(placement.uses_gpu() ? map.vram : map.ram, model.head_bytes);
  add_weights(map.ram, model.embedding_bytes);
  add_scratch(map.ram, ScratchPart::kPadding,
              model.padding_beside(placement.gpu_layers).without_experts);
  if (placement.gpu_layers < layers) {
    add_scratch(map.ram, ScratchPart::kActivations, chunk.scratch);
  }
  if (placement.uses_gpu()) {
    const int64_t scratch = chunk.device_scratch[placement.entries_in_ram][placement.gpu_layers];
    add_scratch(map.vram, ScratchPart::kActivations, scratch - kGpuContextBytes);
    add_scratch(map.vram, ScratchPart::kContext, kGpuContextBytes);
    add_scratch(map.ram, ScratchPart::kBesideGpu, chunk.beside_gpu[placement.gpu_layers]);
  }
  return map;
}

void place_experts(const ModelShape& model, MemoryMap& map, Placement& placement) {
  const int64_t all = model.expert_count();
  placement.vram_experts = 0;
  if (placement.uses_gpu()) {
    const int64_t slot = largest_expert(model);
    const int64_t reachable = int64_t{model.experts} * placement.gpu_layers;
    if (slots_in(room(map.vram), slot) < reachable) {
      add_scratch(map.vram, ScratchPart::kStaging, sent_bytes(model));
    }
    placement.vram_experts = std::min(slots_in(room(map.vram), slot), reachable);
  }
  place_in_ram(model, all - placement.vram_experts, map.ram, placement);
  placement.nvme_experts = all - placement.vram_experts - placement.ram_experts;
}

int64_t lent_experts(const ModelShape& model, const ChunkBytes& chunk, const Placement& placement,
                     int32_t parallel) {
  const auto layers = static_cast<int32_t>(model.layers.size());
  int64_t rows = 0;
  for (int32_t i = 0; i < layers; ++i) {
    if (!placement.on_gpu(i, layers)) continue;
    const bool in_ram = placement.entries_in_ram && model.layers[i].selects_rows();
    rows += chunk.kv[i].index + (in_ram ? 0 : chunk.kv[i].entries);
  }
  const int64_t reachable = int64_t{model.experts} * placement.gpu_layers;
  return std::min(slots_in(parallel * rows, largest_expert(model)),
                  reachable - placement.vram_experts);
}

void add_experts(const ModelShape& model, const std::vector<LayerPlan>& layers, MemoryMap& map) {
  for (size_t i = 0; i < layers.size(); ++i) {
    add_weights(map.vram, layers[i].vram_experts * model.layers[i].expert_bytes);
    add_weights(map.ram, layers[i].ram_experts * model.layers[i].expert_bytes);
    add_weights(map.nvme, layers[i].nvme_experts * model.layers[i].expert_bytes);
    map.vram.experts += layers[i].vram_experts;
    map.ram.experts += layers[i].ram_experts;
    map.nvme.experts += layers[i].nvme_experts;
  }
  map.nvme.budget = map.nvme.used;
  if (map.ram.experts > 0 && map.nvme.experts == 0) {
    for (size_t i = 0; i < layers.size(); ++i)
      add_scratch(map.ram, ScratchPart::kExpertRoom,
                  layers[i].vram_experts * model.layers[i].expert_bytes);
  }
  // Slots take more than the experts in them.
  if (map.nvme.experts > 0) {
    int64_t held = 0;
    for (size_t i = 0; i < layers.size(); ++i)
      held += layers[i].ram_experts * model.layers[i].expert_bytes;
    add_scratch(map.ram, ScratchPart::kPadding, map.ram.experts * model.slot_bytes - held);
  }
}

std::vector<LayerPlan> spread_experts(const ModelShape& model, const Placement& placement) {
  const auto count = static_cast<int64_t>(model.layers.size());
  std::vector<int64_t> none(count), vram(count), ram(count);
  level(placement.vram_experts, count - placement.gpu_layers, model.experts, none, vram);
  level(placement.ram_experts, 0, model.experts, vram, ram);
  std::vector<LayerPlan> layers(count);
  for (int64_t i = 0; i < count; ++i) {
    layers[i].dense_in_vram = placement.on_gpu(i, count);
    layers[i].vram_experts = static_cast<int32_t>(vram[i]);
    layers[i].ram_experts = static_cast<int32_t>(ram[i]);
    layers[i].nvme_experts = static_cast<int32_t>(model.experts - vram[i] - ram[i]);
    layers[i].order = by_use(model.layers[i].likely_use);
  }
  return layers;
}

// Each layer's experts come up in the order of the layer, and what is left of a faster tier only
// shrinks: so those in VRAM are the first ones, and those in RAM the next.
std::vector<LayerPlan> rank_experts(const ModelShape& model, const Placement& placement,
                                    const std::vector<int64_t>& picks) {
  HEARTH_CHECK(std::ssize(picks) == model.expert_count());
  std::vector<int32_t> keys(picks.size());  // layer * experts + expert
  std::iota(keys.begin(), keys.end(), 0);
  std::ranges::stable_sort(keys, std::greater(), [&](int32_t key) { return picks[key]; });
  const auto count = static_cast<int64_t>(model.layers.size());
  std::vector<LayerPlan> layers(count);
  for (int64_t i = 0; i < count; ++i) layers[i].dense_in_vram = placement.on_gpu(i, count);
  int64_t vram = placement.vram_experts, ram = placement.ram_experts;
  for (const int32_t key : keys) {
    LayerPlan& layer = layers[key / model.experts];
    layer.order.push_back(key % model.experts);
    if (layer.dense_in_vram && vram > 0) {
      --vram, ++layer.vram_experts;
    } else if (ram > 0) {
      --ram, ++layer.ram_experts;
    } else {
      ++layer.nvme_experts;
    }
  }
  return layers;
}

}  // namespace hearth
