#include "offload/plan/model_shape.h"

namespace hearth {

int64_t ModelShape::routed_bytes() const {
  int64_t total = 0;
  for (const LayerShape& layer : layers) total += experts * layer.expert_bytes;
  return total;
}

int64_t ModelShape::weight_bytes() const {
  int64_t total = routed_bytes() + head_bytes + embedding_bytes;
  for (const LayerShape& layer : layers) total += layer.dense_bytes;
  return total;
}

}  // namespace hearth
