#include "model/table_use.h"

#include <cstring>

#include "model/tensor_names.h"

namespace hearth {
namespace {

// Byte-pair encodings number their tokens roughly by falling frequency, so an id is about a rank,
// and frequencies of words fall as 1 / rank (Zipf). The first few hundred ids are single bytes,
// which say little: they weigh about alike.
constexpr double kAlike = 100;

}  // namespace

std::vector<double> table_use(const TensorDir& dir, const ModelConfig& config, int32_t layer) {
  const TensorEntry* table = find_tensor(dir, block_tensor_name(layer, "ffn_gate_tid2eid.weight"));
  const std::vector<int64_t> dims = {config.experts_used, config.vocab};
  if (table == nullptr || table->data == nullptr || table->type != TensorType::kI32 ||
      table->dims != dims)
    return {};
  std::vector<double> use(config.experts, 0);
  std::vector<int32_t> row(config.experts_used);
  const size_t row_bytes = row.size() * sizeof(int32_t);
  for (int32_t id = 0; id < config.vocab; ++id) {
    std::memcpy(row.data(), table->data + id * row_bytes, row_bytes);
    for (const int32_t expert : row) {
      if (expert < 0 || expert >= config.experts) return {};
      use[expert] += 1 / (id + kAlike);
    }
  }
  return use;
}

}  // namespace hearth
