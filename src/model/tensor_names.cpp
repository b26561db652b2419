// Aliases replace the part of a name that follows "blk.N."; the ending stays, unless the alias
// names it.
#include "model/tensor_names.h"

#include <fmt/format.h>

namespace hearth {
namespace {

struct Alias {
  std::string_view name;   // start of the name behind "blk.N."
  std::string_view alias;  // what may stand there instead
};

constexpr Alias kAliases[] = {
    {"output_hc_", "hc_head_"},
    {"attn_kv.weight", "attn_kv_latent.weight"},
    {"attn_kv.weight", "attn_kv_a_mqa.weight"},
    {"attn_compressor_", "attn_compress_"},
    {"indexer_compressor_", "indexer.compress_"},
    {"exp_probs_b.bias", "exp_probs_b.weight"},
};

// Length of a leading "blk.N.", 0 where there is none.
size_t block_prefix_length(std::string_view name) {
  if (!name.starts_with("blk.")) return 0;
  const size_t dot = name.find('.', 4);
  return dot == std::string_view::npos ? 0 : dot + 1;
}

}  // namespace

std::string block_tensor_name(int32_t layer, std::string_view name) {
  return fmt::format("blk.{}.{}", layer, name);
}

const TensorEntry* find_tensor(const TensorDir& dir, std::string_view name) {
  if (const TensorEntry* entry = dir.find(name)) return entry;
  const std::string_view prefix = name.substr(0, block_prefix_length(name));
  const std::string_view rest = name.substr(prefix.size());
  for (const Alias& alias : kAliases) {
    if (!rest.starts_with(alias.name)) continue;
    const std::string_view ending = rest.substr(alias.name.size());
    if (const TensorEntry* entry = dir.find(fmt::format("{}{}{}", prefix, alias.alias, ending))) {
      return entry;
    }
  }
  return nullptr;
}

bool has_block(const TensorDir& dir, int32_t layer) {
  const std::string prefix = block_tensor_name(layer, "");
  const auto first = dir.tensors.lower_bound(prefix);
  return first != dir.tensors.end() && first->first.starts_with(prefix);
}

}  // namespace hearth
