// What hwloc knows of a machine, as the fields of a profile.
#include <fmt/format.h>

#include <algorithm>

#include "offload/machine/topology_handle.h"

namespace hearth {
namespace {

constexpr int kClassDisplay = 0x03, kClassStorage = 0x01, kClassBridge = 0x06;
constexpr int kClassNvme = 0x0108, kClass3d = 0x0302;
// Makers of GPUs: servers have small display controllers of others.
constexpr int kGpuVendors[] = {0x10de, 0x1002, 0x8086};

using PciInfo = hwloc_obj_attr_u::hwloc_pcidev_attr_s;

bool is_pci_bridge(hwloc_obj_t object) {
  return object->type == HWLOC_OBJ_BRIDGE &&
         object->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
}

const PciInfo& pci_of(hwloc_obj_t object) {
  return object->type == HWLOC_OBJ_BRIDGE ? object->attr->bridge.upstream.pci
                                          : object->attr->pcidev;
}

std::string address_of(const PciInfo& pci) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.dev, pci.func);
}

// Empty where the device is of no kind that weights are kept on or read from.
std::string kind_of(const PciInfo& pci) {
  const int base = pci.class_id >> 8;
  if (base == kClassBridge) return "bridge";
  if (pci.class_id == kClassNvme) return "nvme";
  if (base == kClassStorage) return "storage";
  if (base != kClassDisplay) return "";
  const bool is_gpu = pci.class_id == kClass3d ||
                      std::ranges::find(kGpuVendors, pci.vendor_id) != std::end(kGpuVendors);
  return is_gpu ? "gpu" : "display";
}

std::string info_of(hwloc_obj_t object, const char* key) {
  const char* value = hwloc_obj_get_info_by_name(object, key);
  return value == nullptr ? "" : value;
}

// The model of the disk on it, else what hwloc knows it by, else its numbers.
std::string name_of(hwloc_obj_t object) {
  for (hwloc_obj_t child = object->io_first_child;
       object->type == HWLOC_OBJ_PCI_DEVICE && child != nullptr; child = child->next_sibling) {
    const std::string model = info_of(child, "Model");
    if (!model.empty()) return model;
  }
  const std::string vendor = info_of(object, "PCIVendor"), device = info_of(object, "PCIDevice");
  if (!device.empty()) return vendor.empty() ? device : vendor + " " + device;
  const PciInfo& pci = pci_of(object);
  return fmt::format("{:04x}:{:04x}", pci.vendor_id, pci.device_id);
}

int32_t count_of(hwloc_topology_t topology, hwloc_obj_type_t type) {
  return std::max(hwloc_get_nbobjs_by_type(topology, type), 1);
}

Cpu describe_cpu(hwloc_topology_t topology) {
  Cpu cpu;
  cpu.packages = count_of(topology, HWLOC_OBJ_PACKAGE);
  cpu.cores = count_of(topology, HWLOC_OBJ_CORE);
  cpu.threads = count_of(topology, HWLOC_OBJ_PU);
  cpu.team = cpu.cores;
  if (const hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0)) {
    cpu.name = info_of(package, "CPUModel");
  }
  if (const hwloc_obj_t l2 = hwloc_get_obj_by_type(topology, HWLOC_OBJ_L2CACHE, 0)) {
    cpu.l2_bytes = static_cast<int64_t>(l2->attr->cache.size);
  }
  hwloc_obj_t l3 = nullptr;
  while ((l3 = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_L3CACHE, l3)) != nullptr) {
    cpu.l3_bytes += static_cast<int64_t>(l3->attr->cache.size);
  }
  return cpu;
}

PciDevice describe_device(hwloc_obj_t object) {
  const PciInfo& pci = pci_of(object);
  const bool has_parent = object->parent != nullptr && is_pci_bridge(object->parent);
  return {.address = address_of(pci),
          .name = name_of(object),
          .kind = kind_of(pci),
          .parent = has_parent ? address_of(pci_of(object->parent)) : "",
          .link_gb_s = pci.linkspeed};
}

// The device and the bridges above it that the list doesn't have yet, from the top down.
void add_with_bridges(hwloc_obj_t object, int32_t node, std::vector<PciDevice>& devices) {
  const std::string address = address_of(pci_of(object));
  if (std::ranges::find(devices, address, &PciDevice::address) != devices.end()) return;
  if (object->parent != nullptr && is_pci_bridge(object->parent)) {
    add_with_bridges(object->parent, node, devices);
  }
  devices.push_back(describe_device(object));
  devices.back().node = node;
}

}  // namespace

int Topology::node_numbered(int number) const {
  const auto& nodes = handle_->nodes;
  const auto found = std::ranges::find_if(
      nodes, [&](hwloc_obj_t node) { return static_cast<int>(node->os_index) == number; });
  const auto index = static_cast<int>(found - nodes.begin());
  return index < this->nodes() ? index : 0;
}

Machine Topology::describe() const {
  Machine machine;
  const hwloc_topology_t topology = handle_->topology;
  if (topology == nullptr) {
    machine.nodes.resize(1);
    machine.nodes[0].cores = 1;
    return machine;
  }
  machine.cpu = describe_cpu(topology);
  machine.nodes.resize(static_cast<size_t>(nodes()));
  for (MemoryNode& node : machine.nodes) {
    node.cores = cores() / nodes();
  }
  for (hwloc_obj_t object = nullptr;
       (object = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, object)) != nullptr;) {
    const bool has_cores = handle_->cores_of(object) > 0;
    // Where the nodes count as one, that one has all memory; else memory without cores is left out.
    if (!has_cores && nodes() > 1) continue;
    machine.nodes[static_cast<size_t>(node_numbered(static_cast<int>(object->os_index)))]
        .memory_bytes += static_cast<int64_t>(object->attr->numanode.local_memory);
  }
  for (hwloc_obj_t object = nullptr;
       (object = hwloc_get_next_pcidev(topology, object)) != nullptr;) {
    if (kind_of(pci_of(object)).empty()) continue;
    const hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(topology, object);
    const int number = place->nodeset == nullptr ? 0 : hwloc_bitmap_first(place->nodeset);
    add_with_bridges(object, node_numbered(number), machine.pci);
  }
  return machine;
}

}  // namespace hearth
