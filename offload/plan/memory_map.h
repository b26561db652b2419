// Where every byte of a placement lies.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "offload/plan/model_shape.h"
#include "offload/plan/placement.h"
#include "offload/plan/plan.h"

namespace hearth {

// What a CUDA context and its libraries take of a card.
constexpr int64_t kGpuContextBytes = int64_t{400} << 20;

// What the program itself takes beside weights, caches and scratch.
int64_t program_bytes(const ModelShape& model);

// What a chunk size costs, whatever the placement: asked for once, since the exact figures come
// from objects that must be made.
struct ChunkBytes {
  int32_t chunk_tokens;
  std::vector<KvBytes> kv;  // of a session, [layers]
  int64_t scratch;          // on the host, of layers that it computes
  // By how many layers are on a GPU, [layers + 1]: there, by Placement::entries_in_ram, and on the
  // host for its sake.
  std::array<std::vector<int64_t>, 2> device_scratch;
  std::vector<int64_t> beside_gpu;
};
ChunkBytes chunk_bytes(const ModelShape& model, const Workload& work, int32_t chunk_tokens,
                       int32_t threads);

struct MemoryMap {
  TierPlan vram, ram, nvme;

  bool fits() const { return vram.used <= vram.budget && ram.used <= ram.budget; }
};

// Bytes of KV cache in the fastest tier beyond those allowed there.
int64_t kv_over_budget(const MemoryMap& map, const Placement& placement,
                       std::optional<int64_t> kv_budget);

// A placement's parts but the routed experts.
MemoryMap map_fixed(const ModelShape& model, const ChunkBytes& chunk, const Placement& placement,
                    int32_t parallel, int64_t vram_budget, int64_t ram_budget);
// Gives the room that is left to routed experts: their numbers in `placement`, and in `map` what
// moving them takes.
void place_experts(const ModelShape& model, MemoryMap& map, Placement& placement);

// Experts beyond those in VRAM that have room there as long as no compressed rows are written, at
// most: rows take their memory as a conversation grows.
int64_t lent_experts(const ModelShape& model, const ChunkBytes& chunk, const Placement& placement,
                     int32_t parallel);

// Experts of each layer, spread evenly; in order where the layer tells which are likely used most,
// of equals the lower number first.
std::vector<LayerPlan> spread_experts(const ModelShape& model, const Placement& placement);
// By how often each was picked, `picks` [layers * experts]: VRAM takes those of the layers on the
// GPU with the most picks, RAM the next ones of all layers; of equals the lower number.
std::vector<LayerPlan> rank_experts(const ModelShape& model, const Placement& placement,
                                    const std::vector<int64_t>& picks);
// Adds their bytes.
void add_experts(const ModelShape& model, const std::vector<LayerPlan>& layers, MemoryMap& map);

}  // namespace hearth
