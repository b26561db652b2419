#include "offload/machine/topology.h"

#include <hwloc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace hearth {

struct Topology::Handle {
  hwloc_topology_t topology = nullptr;  // null where the machine can't be read
  std::vector<hwloc_obj_t> nodes;       // those with cores
  ~Handle() {
    if (topology != nullptr) hwloc_topology_destroy(topology);
  }

  int cores_of(hwloc_obj_t node) const {
    return hwloc_get_nbobjs_inside_cpuset_by_type(topology, node->cpuset, HWLOC_OBJ_CORE);
  }

  void find_nodes() {
    const int count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    for (int i = 0; i < count; ++i) {
      const hwloc_obj_t node = hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, i);
      if (cores_of(node) > 0) nodes.push_back(node);
    }
  }
};

Topology::Topology() : handle_(std::make_unique<Handle>()) {
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return;
  hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING);
  if (hwloc_topology_load(topology) == 0) {
    handle_->topology = topology;
    handle_->find_nodes();
  } else {
    hwloc_topology_destroy(topology);
  }
}

Topology::Topology(const std::string& description) : handle_(std::make_unique<Handle>()) {
  if (hwloc_topology_init(&handle_->topology) != 0 ||
      hwloc_topology_set_synthetic(handle_->topology, description.c_str()) != 0 ||
      hwloc_topology_load(handle_->topology) != 0) {
    throw Error("hwloc doesn't understand this topology", description,
                "Write it as in numa:2 core:4 pu:2");
  }
  handle_->find_nodes();
}

Topology::~Topology() = default;

const Topology& Topology::of_this_machine() {
  static const Topology topology;
  return topology;
}

int Topology::cores() const {
  if (handle_->topology == nullptr) return 1;
  return std::max(hwloc_get_nbobjs_by_type(handle_->topology, HWLOC_OBJ_CORE), 1);
}

int Topology::nodes() const {
  const auto& nodes = handle_->nodes;
  if (nodes.empty()) return 1;
  const int each = handle_->cores_of(nodes.front());
  const bool even =
      std::ranges::all_of(nodes, [&](hwloc_obj_t node) { return handle_->cores_of(node) == each; });
  const int count = static_cast<int>(nodes.size());
  return even && count * each == cores() ? count : 1;
}

void Topology::bind_thread(int thread, int threads) const {
  if (handle_->topology == nullptr || threads != cores()) return;
  const hwloc_obj_t core = hwloc_get_obj_by_type(handle_->topology, HWLOC_OBJ_CORE, thread);
  if (core == nullptr) return;
  hwloc_bitmap_t processor = hwloc_bitmap_dup(core->cpuset);
  hwloc_bitmap_singlify(processor);
  // Where it is refused, as in some containers, only the speed differs.
  hwloc_set_cpubind(handle_->topology, processor, HWLOC_CPUBIND_THREAD);
  hwloc_bitmap_free(processor);
}

void Topology::bind_memory(void* begin, size_t bytes, int node) const {
  if (handle_->nodes.empty() || bytes == 0) return;
  hwloc_set_area_membind(handle_->topology, begin, bytes, handle_->nodes[node]->nodeset,
                         HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_BYNODESET);
}

}  // namespace hearth
