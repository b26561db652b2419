#include "model/stages.h"

namespace hearth {

const char* stage_name(Stage stage) {
  constexpr std::array<const char*, kStages> kNames = {
      "embedding",  "hyper_connections", "attention_projections",
      "compressor", "indexer",           "attention",
      "router",     "routed_experts",    "shared_expert",
      "head",       "sampling"};
  return kNames[static_cast<int>(stage)];
}

}  // namespace hearth
