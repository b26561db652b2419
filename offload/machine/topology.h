// The cores and NUMA nodes this process may use, and the ways to bind threads and memory to them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "offload/machine/machine.h"

namespace hearth {

class Topology {
 public:
  enum class Devices { kNone, kPci };  // looking for devices takes longer

  // This machine, less what the process was kept from when it first asked; without devices.
  static const Topology& of_this_machine();
  explicit Topology(Devices devices);
  // A made-up machine as hwloc writes them, "numa:2 core:4 pu:2" or XML; nothing can be bound
  // there. Throws Error.
  explicit Topology(const std::string& description);
  ~Topology();
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  int cores() const;  // physical ones, at least 1
  // NUMA nodes that have cores, at least 1; 1 where cores are not spread over them evenly, or
  // over more than NodeShares::kNodesMax.
  int nodes() const;

  // The fields of a profile that say what there is: name and counts of the CPU, memory and cores of
  // the nodes, GPUs and disks on PCI with the bridges above them. Rates stay 0.
  Machine describe() const;
  // Which of nodes() the kernel calls `number`; the first where none is called so.
  int node_numbered(int number) const;

  // Binds the calling thread to a core; cores are numbered node after node. The scheduler then
  // can't put two of a team on one.
  void bind_to_core(int core) const;
  // The same to all cores of a node.
  void bind_to_node(int node) const;
  // Pages of this memory will come from `node` when they are first touched.
  void bind_memory(void* begin, size_t bytes, int node) const;

 private:
  struct Handle;
  void find_nodes();
  std::unique_ptr<Handle> handle_;
};

}  // namespace hearth
