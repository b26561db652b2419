// What one token reads of a layer's cache, and computes with it, by its position alone.
#pragma once

#include <cstdint>

#include "base/tensor_type.h"
#include "model/config.h"
#include "model/stages.h"

namespace hearth {

// Attention: the window, and the compressed entries that the token sees or selects.
void count_attention(const ModelConfig& config, LayerKind kind, int64_t position, KvType type,
                     StageTotals& totals);
// The indexer of a CSA layer: nothing where the token sees no more entries than it selects.
void count_index_scores(const ModelConfig& config, int64_t position, KvType type,
                        StageTotals& totals);

}  // namespace hearth
