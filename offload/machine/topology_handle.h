// What a Topology keeps of hwloc, for the files that implement it.
#pragma once

#include <hwloc.h>

#include <vector>

#include "offload/machine/topology.h"

namespace hearth {

struct Topology::Handle {
  hwloc_topology_t topology = nullptr;  // null where the machine can't be read
  std::vector<hwloc_obj_t> nodes;       // those with cores

  Handle() = default;
  ~Handle() {
    if (topology != nullptr) hwloc_topology_destroy(topology);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  int cores_of(hwloc_obj_t node) const {
    return hwloc_get_nbobjs_inside_cpuset_by_type(topology, node->cpuset, HWLOC_OBJ_CORE);
  }
};

}  // namespace hearth
