// An expert cache over the files of a model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "format/tensor_dir.h"
#include "offload/machine/topology.h"
#include "offload/store/expert_cache.h"

namespace hearth {

struct CacheOptions {
  int32_t experts;  // of a layer
  int64_t slots;
  int32_t read_ahead;                          // experts under way at once
  NodeShares shares = NodeShares::even(1, 1);  // of the threads that multiply
};

struct OpenCache {
  std::unique_ptr<ExpertCache> cache;
  std::vector<std::string> notes;  // what a person should know about speed or memory
};

// Throws Error where memory is refused or a file can't be opened.
OpenCache open_expert_cache(const TensorDir& dir, std::vector<LayerExperts> layers,
                            const CacheOptions& options, const Topology& topology);

}  // namespace hearth
