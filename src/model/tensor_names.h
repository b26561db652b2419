// The names a tensor goes by: converters disagree on a few, so every look-up goes through the alias
// table here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/tensor_dir.h"

namespace hearth {

// "blk.LAYER.NAME"
std::string block_tensor_name(int32_t layer, std::string_view name);

// The tensor called `name` (the first spelling of the specification) or one of its aliases; null
// where the file has neither.
const TensorEntry* find_tensor(const TensorDir& dir, std::string_view name);

// Whether the file has any tensor of block `layer`.
bool has_block(const TensorDir& dir, int32_t layer);

}  // namespace hearth
