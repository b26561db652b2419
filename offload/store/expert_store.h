// The door to the routed experts: routing goes in, groups of tokens by expert come out, each with
// the place its weights can be read from. It decides where bytes live and computes nothing.
//
// One thread owns a store. Every expert lies in the mapped model file.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/store/expert_weights.h"

namespace hearth {

// The router's choice for n tokens of one layer.
struct Routing {
  int32_t n;
  int32_t used;
  const int32_t* picks;  // [n, used] experts, best first
};

// The tokens that chose one expert. The groups' slots follow each other: first_slot + i belongs to
// rows[i].
struct ExpertGroup {
  int32_t expert;
  ExpertWeights weights;
  const int32_t* rows;   // [n] token rows, ascending
  const int32_t* picks;  // [n] index into Routing::picks
  int32_t n;
  int32_t first_slot;
};

struct GroupedExperts {
  std::span<const ExpertGroup> on_cpu;
};

class ExpertStore {
 public:
  // `stacks` holds one entry a layer; `tokens_max` bounds Routing::n.
  ExpertStore(std::vector<ExpertWeights> stacks, int32_t experts, int32_t used, int32_t tokens_max);

  // Valid until the next call. Allocates nothing.
  GroupedExperts group(int32_t layer, const Routing& routing) noexcept;

 private:
  std::vector<ExpertWeights> stacks_;
  int32_t experts_;
  std::vector<int32_t> counts_;  // [experts] tokens of each expert, then its next free slot
  std::vector<int32_t> rows_;    // [tokens_max * used] rows by slot
  std::vector<int32_t> picks_;   // [tokens_max * used] pick by slot
  std::vector<ExpertGroup> groups_;
};

}  // namespace hearth
