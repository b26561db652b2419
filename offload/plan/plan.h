// What the planner decides, and why: immutable once made. Allocation, loading and the hot path
// follow it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/workers.h"
#include "offload/plan/cost_model.h"
#include "offload/plan/placement.h"

namespace hearth {

struct LayerPlan {
  bool dense_in_vram = false;
  int32_t vram_experts = 0;
  int32_t ram_experts = 0;
  int32_t nvme_experts = 0;
  // All of the layer's experts: the first `vram_experts` of them lie in VRAM at first, the next
  // `ram_experts` in RAM. Empty: nothing is known of their use, and their numbers are the order.
  std::vector<int32_t> order = {};
};

// What a KV cache is made of: of all sessions together.
enum class KvPart { kWindow, kCsaRows, kHcaRows, kIndexKeys, kCarried };
constexpr int kKvParts = 5;
const char* part_name(KvPart part);

enum class ScratchPart {
  kActivations,
  kBesideGpu,   // of RAM, for layers on the GPU: their other experts' activations, pinned buffers
  kStaging,     // of VRAM: experts of prompts that are on their way
  kContext,     // CUDA's own
  kPadding,     // between tensors and around slots
  kExpertRoom,  // of RAM, that experts in VRAM come back to, or a token's would need
  kProgram,     // where it is what doesn't fit
};
constexpr int kScratchParts = 7;
const char* part_name(ScratchPart part);

struct TierPlan {
  int64_t budget = 0;                                     // bytes
  int64_t used = 0;                                       // bytes, all of the below
  int64_t weights = 0;                                    // bytes, experts included
  int64_t experts = 0;                                    // routed ones, counted
  int64_t kv = 0;                                         // bytes
  int64_t scratch = 0;                                    // bytes
  std::array<int64_t, kKvParts> kv_parts = {};            // bytes, together `kv`
  std::array<int64_t, kScratchParts> scratch_parts = {};  // bytes, together `scratch`

  int64_t expert_room() const { return scratch_parts[static_cast<int>(ScratchPart::kExpertRoom)]; }
};

struct Prediction {
  double decode_tok_s = 0;
  double decode_tok_s_low = 0;  // hit rates as if the most frequent experts were held for good
  double decode_tok_s_high = 0;
  double prefill_tok_s = 0;
  Cost decode;                 // a step, seconds by resource
  Cost prefill;                // the prompt
  double vram_hit_rate = 0;    // of picks
  double memory_hit_rate = 0;  // of picks: in VRAM or RAM
};

// The same plan on a changed machine.
struct Upgrade {
  std::string change;
  double decode_tok_s;
  double prefill_tok_s;
};

struct Plan {
  std::string model;
  std::string machine;
  Workload work;
  std::string isa;
  int32_t threads = 1;
  // Of these on each NUMA node; empty: there is one, or the system places them.
  std::vector<int32_t> node_threads;
  std::string kv;  // how cache rows are stored
  Placement placement;
  std::vector<LayerPlan> layers;
  TierPlan vram, ram, nvme;
  int64_t weight_bytes = 0;
  int64_t routed_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t scratch_bytes = 0;
  int64_t program_bytes = 0;  // of RAM, beside all of these
  Prediction predict;
  std::vector<Upgrade> upgrades;      // the best first
  std::vector<std::string> why;       // the decisions in words
  std::vector<std::string> problems;  // what has no place; empty where all fits

  bool fits() const { return problems.empty(); }
  // Whether it matters which experts lie where.
  bool divides_experts() const {
    return (vram.experts > 0) + (ram.experts > 0) + (nvme.experts > 0) > 1;
  }
  int64_t total_bytes() const { return weight_bytes + kv_bytes + scratch_bytes; }
  NodeShares shares() const {
    return node_threads.empty() ? NodeShares::even(threads, 1) : NodeShares(node_threads);
  }
  // Of everything decided; not of predictions, which a new measurement changes.
  uint64_t hash() const;
};

}  // namespace hearth
