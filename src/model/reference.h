// The whole model in plain loops: float32 throughout, one token's maths after another, no kernel,
// no cache of compressed rows. Slow and obvious: it is what the tests compare the real model with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/weights.h"

namespace hearth {

struct ReferenceOutput {
  std::vector<std::vector<float>>
      hidden;  // [layers + 1][tokens * streams * dim]: after the embedding and each block
  std::vector<std::vector<int32_t>> picks;  // [layers][tokens * experts_used]
  std::vector<float> logits;                // [tokens * vocab]
};

// The forward pass over `tokens` from position 0, with room for just these tokens of context.
ReferenceOutput run_reference(const ModelConfig& config, const ModelWeights& weights,
                              std::span<const int32_t> tokens);

}  // namespace hearth
