#include "offload/plan/plan.h"

#include "base/hash.h"

namespace hearth {
namespace {

void add(ResultHash& hash, const std::string& text) {
  hash.add(std::span<const char>(text.data(), text.size()));
  const int64_t length = static_cast<int64_t>(text.size());
  hash.add(std::span(&length, 1));
}

}  // namespace

const char* part_name(KvPart part) {
  constexpr std::array<const char*, kKvParts> kNames = {"window rings", "CSA rows", "HCA rows",
                                                        "index keys", "compressor state"};
  return kNames[static_cast<int>(part)];
}

const char* part_name(ScratchPart part) {
  constexpr std::array<const char*, kScratchParts> kNames = {
      "activations", "host buffers of GPU layers", "experts on their way", "CUDA",
      "padding",     "room for experts",           "the program"};
  return kNames[static_cast<int>(part)];
}

uint64_t Plan::hash() const {
  ResultHash hash;
  for (const std::string* text : {&model, &isa, &kv}) add(hash, *text);
  const int64_t numbers[] = {
      work.context,           work.parallel,        threads,
      placement.chunk_tokens, placement.gpu_layers, placement.entries_in_ram ? 1 : 0,
      weight_bytes,           routed_bytes,         kv_bytes,
      scratch_bytes};
  hash.add(std::span<const int64_t>(numbers));
  hash.add(std::span<const int32_t>(node_threads));
  for (const LayerPlan& layer : layers) {
    const int32_t places[] = {layer.vram_experts, layer.ram_experts, layer.nvme_experts};
    hash.add(std::span<const int32_t>(places));
    hash.add(std::span<const int32_t>(layer.order));
  }
  return hash.value();
}

}  // namespace hearth
