// How a recorded text used the experts of a model, as plans follow it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "offload/plan/hit_curve.h"

namespace hearth {

// What routing is of.
struct RoutingShape {
  int32_t layers = 0;
  int32_t experts = 0;  // of a layer
  int32_t used = 0;     // of these, by a token

  bool operator==(const RoutingShape&) const = default;
};

struct RecordedUse {
  std::string source;  // the file it was recorded into
  RoutingShape shape;
  int64_t tokens = 0;
  std::vector<int64_t> picks;                // [layers * experts] how often each was chosen
  HitCurve hits = HitCurve::of_real_text();  // what caches would have served of them
};

// Throws an Error that names both shapes where what was recorded into `source` is of another model.
void check_routing_shape(const RoutingShape& recorded, const std::string& source,
                         const RoutingShape& model, const std::string& model_name);

}  // namespace hearth
