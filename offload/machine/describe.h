// What this machine has, from hwloc and from the kernel's files: the parts of a profile that need
// no measuring.
#pragma once

#include <filesystem>

#include "offload/machine/machine.h"
#include "offload/machine/topology.h"

namespace hearth {

// Everything but the rates; a name made of what there is.
Machine describe_machine();

// What a PCI link carries a way at its best: its lanes in use, as fast as both ends can. The speed
// in use tells less, since idle devices slow their links down. 0 where it is not known.
// `devices`: the kernel's folder of PCI devices.
double pci_link_gb_s(const std::filesystem::path& devices, const std::string& address);

// The disk that holds this folder, without rates: name, capacity, node. Of what is no disk, such as
// a network's, the name says so. Throws Error.
Disk describe_disk(const std::filesystem::path& folder, const Topology& topology);

}  // namespace hearth
