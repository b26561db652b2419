#include "offload/plan/recorded_use.h"

#include <fmt/format.h>

#include "base/error.h"

namespace hearth {

void check_routing_shape(const RoutingShape& recorded, const std::string& source,
                         const RoutingShape& model, const std::string& model_name) {
  if (recorded == model) return;
  throw Error(fmt::format("has {} layers of {} experts, {} used; {} has {} of {}, {} used",
                          recorded.layers, recorded.experts, recorded.used, model_name,
                          model.layers, model.experts, model.used),
              source,
              "Name the model it was recorded from, or record one of this model: hearth trace");
}

}  // namespace hearth
