// Routed experts on the CPU: groups of tokens, as the store has them at hand, through gate, up and
// down, summed per token in routing order, so that a token's result does not depend on how tokens
// were grouped or where weights lay.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "model/config.h"
#include "model/linear.h"
#include "offload/store/expert_store.h"

namespace hearth {

// What experts keep between their two loops over the workers, a row a slot.
struct ExpertHidden {
  float* gate;  // [slots, width]
  float* up;    // [slots, width]
  ActivationRows& rows;
  float clamp;
};

// The first loop: hidden = silu(min(gate x, clamp)) * clamp(up x, -clamp, clamp) of every group.
// The first `n` rows of x are rounded where the weights read them so. `products` is scratch.
void gate_and_up(Compute& compute, StageTotals& totals, std::span<const ExpertGroup> groups,
                 ActivationRows& x, int64_t n, std::vector<Product>& products,
                 const ExpertHidden& hidden);

// Scratch memory for `n` rows, each with experts_used picks.
struct ExpertScratch {
  ExpertScratch(const ModelConfig& config, const Kernels& kernels, int64_t n);
  std::vector<const Buffer*> buffers() const;  // all memory it takes
  int64_t bytes() const { return total_bytes(buffers()); }

  int32_t used;
  int64_t dim;
  Buffer gate;              // [slots, expert_dim]; slots = n * used
  Buffer up;                // [slots, expert_dim]
  ActivationBuffer hidden;  // [slots, expert_dim]
  Buffer slot_rows;         // [slots] int32: each slot's row of `hidden`
  Buffer out_rows;          // [slots] int32: each slot's row of `out`, seen as rows of dim
  Buffer out;  // [n, used + 1, dim]: outputs in routing order, then the shared expert's
  std::vector<Product> products;
};

// What the routed experts of a layer compute: y[i] = sum over t < terms of weights[i, t] out[i, t].
struct ExpertSums {
  ActivationRows& x;  // [n, dim]
  int64_t n;
  const float* weights;  // [n, used + 1]
  const int32_t* terms;  // [n] how many of out's rows count, or null for all used + 1
  float* y;              // [n, y_stride]
  int64_t y_stride;
  float clamp;
};

// Of the layer that the store has begun. Where a read fails the rest is left out, and the store
// knows. `between` is called whenever some of the experts are done.
void routed_experts(Compute& compute, StageTotals& totals, ExpertScratch& scratch,
                    ExpertStore& store, const ExpertSums& sums,
                    const std::function<void()>& between = nullptr);

}  // namespace hearth
