// Names of PCI devices from the list that Linux systems keep of them.
#pragma once

#include <filesystem>
#include <string>

namespace hearth {

// "NVIDIA Corporation GB202 [GeForce RTX 5090]" of "10de:2b85"; of a device the list doesn't have,
// the maker and the number; the numbers where it has neither or can't be read.
std::string pci_name(const std::filesystem::path& list, const std::string& numbers);

}  // namespace hearth
