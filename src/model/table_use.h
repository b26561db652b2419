// How often layers that are routed by token id are likely to use their experts, as their tables
// tell.
#pragma once

#include <cstdint>
#include <vector>

#include "format/tensor_dir.h"
#include "model/config.h"

namespace hearth {

// [experts], of a hash-routed layer: the ids whose row of the table names the expert, each weighed
// by how frequent its token likely is. Empty where the file has no such table, or a wrong one,
// which loading it reports.
std::vector<double> table_use(const TensorDir& dir, const ModelConfig& config, int32_t layer);

}  // namespace hearth
