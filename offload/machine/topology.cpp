#include "offload/machine/topology.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/workers.h"
#include "offload/machine/topology_handle.h"

namespace hearth {
namespace {

// Parts of hwloc that look for devices through other libraries or an X server, and would find no
// more than the kernel's files tell.
constexpr const char* kUnwanted[] = {"pci", "cuda", "nvml", "rsmi", "levelzero", "opencl", "gl"};

// Null where the machine can't be read.
hwloc_topology_t load_this_machine(Topology::Devices devices) {
  hwloc_topology_t topology;
  if (hwloc_topology_init(&topology) != 0) return nullptr;
  hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING);
  if (devices == Topology::Devices::kPci) {
    hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    for (const char* name : kUnwanted) {
      hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, name);
    }
  }
  if (hwloc_topology_load(topology) == 0) return topology;
  hwloc_topology_destroy(topology);
  return nullptr;
}

bool set_description(hwloc_topology_t topology, const std::string& description) {
  if (!description.starts_with("<")) {
    return hwloc_topology_set_synthetic(topology, description.c_str()) == 0;
  }
  hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  const int bytes = static_cast<int>(description.size()) + 1;  // with the final zero
  return hwloc_topology_set_xmlbuffer(topology, description.c_str(), bytes) == 0;
}

}  // namespace

Topology::Topology(Devices devices) : handle_(std::make_unique<Handle>()) {
  handle_->topology = load_this_machine(devices);
  find_nodes();
}

Topology::Topology(const std::string& description) : handle_(std::make_unique<Handle>()) {
  if (hwloc_topology_init(&handle_->topology) != 0 ||
      !set_description(handle_->topology, description) ||
      hwloc_topology_load(handle_->topology) != 0) {
    throw Error("hwloc doesn't understand this topology", description,
                "Write it as in numa:2 core:4 pu:2");
  }
  find_nodes();
}

void Topology::find_nodes() {
  if (handle_->topology == nullptr) return;
  const int count = hwloc_get_nbobjs_by_type(handle_->topology, HWLOC_OBJ_NUMANODE);
  for (int i = 0; i < count; ++i) {
    const hwloc_obj_t node = hwloc_get_obj_by_type(handle_->topology, HWLOC_OBJ_NUMANODE, i);
    if (handle_->cores_of(node) > 0) handle_->nodes.push_back(node);
  }
}

Topology::~Topology() = default;

const Topology& Topology::of_this_machine() {
  static const Topology topology(Devices::kNone);
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
  const bool is_one_by_one = even && count * each == cores() && count <= NodeShares::kNodesMax;
  return is_one_by_one ? count : 1;
}

void Topology::bind_to_core(int number) const {
  if (handle_->topology == nullptr) return;
  const hwloc_obj_t core = hwloc_get_obj_by_type(handle_->topology, HWLOC_OBJ_CORE, number);
  if (core == nullptr) return;
  hwloc_bitmap_t processor = hwloc_bitmap_dup(core->cpuset);
  hwloc_bitmap_singlify(processor);
  // Where it is refused, as in some containers, only the speed differs.
  hwloc_set_cpubind(handle_->topology, processor, HWLOC_CPUBIND_THREAD);
  hwloc_bitmap_free(processor);
}

void Topology::bind_to_node(int node) const {
  if (handle_->nodes.empty()) return;
  hwloc_set_cpubind(handle_->topology, handle_->nodes[node]->cpuset, HWLOC_CPUBIND_THREAD);
}

void Topology::bind_memory(void* begin, size_t bytes, int node) const {
  if (handle_->nodes.empty() || bytes == 0) return;
  hwloc_set_area_membind(handle_->topology, begin, bytes, handle_->nodes[node]->nodeset,
                         HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_BYNODESET);
}

}  // namespace hearth
