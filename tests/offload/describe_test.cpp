// What a machine has: made-up topologies, a made-up tree of PCI devices, this machine.
#include "offload/machine/describe.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "offload/machine/pci_names.h"
#include "support.h"

using namespace hearth;

namespace {

// Two nodes of a core each. Below the second: a bridge with a GPU and an NVMe disk, a network card,
// and the small display controller of a server.
constexpr const char* kTwoNodes = R"(<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
 <object type="Machine" os_index="0" cpuset="0x3" complete_cpuset="0x3" allowed_cpuset="0x3" nodeset="0x3"
   complete_nodeset="0x3" allowed_nodeset="0x3" gp_index="1">
  <object type="Package" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1"
    gp_index="2">
   <info name="CPUModel" value="Some CPU"/>
   <object type="NUMANode" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1"
     gp_index="3" local_memory="1000000"/>
   <object type="Core" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1"
     gp_index="4">
    <object type="PU" os_index="0" cpuset="0x1" complete_cpuset="0x1" nodeset="0x1" complete_nodeset="0x1"
      gp_index="5"/>
   </object>
  </object>
  <object type="Package" os_index="1" cpuset="0x2" complete_cpuset="0x2" nodeset="0x2" complete_nodeset="0x2"
    gp_index="6">
   <object type="NUMANode" os_index="1" cpuset="0x2" complete_cpuset="0x2" nodeset="0x2" complete_nodeset="0x2"
     gp_index="7" local_memory="2000000"/>
   <object type="Core" os_index="1" cpuset="0x2" complete_cpuset="0x2" nodeset="0x2" complete_nodeset="0x2"
     gp_index="8">
    <object type="PU" os_index="1" cpuset="0x2" complete_cpuset="0x2" nodeset="0x2" complete_nodeset="0x2"
      gp_index="9"/>
   </object>
   <object type="Bridge" gp_index="10" bridge_type="0-1" depth="0" bridge_pci="0000:[00-02]">
    <object type="Bridge" gp_index="11" bridge_type="1-1" depth="1" bridge_pci="0000:[01-02]"
      pci_busid="0000:00:01.0" pci_type="0604 [8086:a70d] [0000:0000] 01" pci_link_speed="63.0">
     <object type="PCIDev" gp_index="12" pci_busid="0000:01:00.0" pci_type="0300 [10de:2b85] [0000:0000] a1"
       pci_link_speed="63.0">
      <info name="PCIVendor" value="NVIDIA Corporation"/>
      <info name="PCIDevice" value="GB202"/>
     </object>
     <object type="PCIDev" gp_index="13" pci_busid="0000:02:00.0" pci_type="0108 [144d:a80d] [0000:0000] 00"
       pci_link_speed="15.75">
      <object type="OSDev" gp_index="14" name="nvme0n1" osdev_type="0">
       <info name="Model" value="Some SSD 2TB"/>
      </object>
     </object>
    </object>
    <object type="PCIDev" gp_index="15" pci_busid="0000:00:1f.0" pci_type="0300 [1a03:2000] [0000:0000] 01"
      pci_link_speed="0.0"/>
    <object type="PCIDev" gp_index="16" pci_busid="0000:00:1e.0" pci_type="0200 [8086:15f3] [0000:0000] 01"
      pci_link_speed="0.0"/>
   </object>
  </object>
 </object>
</topology>
)";

// A device as the kernel shows it: a folder below that of the device above it.
void make_device(const std::filesystem::path& folder, const std::string& speed,
                 const std::string& lanes) {
  std::filesystem::create_directories(folder);
  if (!speed.empty()) std::ofstream(folder / "max_link_speed") << speed << "\n";
  if (!lanes.empty()) std::ofstream(folder / "current_link_width") << lanes << "\n";
}

}  // namespace

TEST_CASE("packages, nodes, cores, threads and caches of made-up machines") {
  struct Case {
    const char* description;
    int packages, nodes, cores, threads;
    int64_t l3_bytes;
  };
  constexpr int64_t kMiB = 1 << 20;
  for (const Case& c :
       {Case{"numa:1 core:8 pu:2", 1, 1, 8, 16, 0},
        Case{"pack:2 numa:1 core:4 pu:2", 2, 2, 8, 16, 0},
        Case{"pack:2 numa:4 core:3 pu:1", 2, 8, 24, 24, 0},
        Case{"pack:2 numa:1 l3:2(size=16777216) core:2 pu:2", 2, 2, 8, 16, 64 * kMiB}}) {
    CAPTURE(std::string(c.description));
    const Machine machine = Topology(c.description).describe();
    CHECK(machine.cpu.packages == c.packages);
    CHECK(machine.cpu.cores == c.cores);
    CHECK(machine.cpu.team == c.cores);
    CHECK(machine.cpu.threads == c.threads);
    CHECK(machine.cpu.l3_bytes == c.l3_bytes);
    REQUIRE(std::ssize(machine.nodes) == c.nodes);
    for (const MemoryNode& node : machine.nodes) {
      CHECK(node.cores == c.cores / c.nodes);
      CHECK(node.memory_bytes > 0);
    }
  }
}

TEST_CASE("GPUs and disks have their place, the bridge above them and their node") {
  const Topology topology(kTwoNodes);
  const Machine machine = topology.describe();
  CHECK(machine.cpu.name == "Some CPU");
  REQUIRE(machine.nodes.size() == 2);
  CHECK(machine.nodes[0].memory_bytes == 1000000);
  CHECK(machine.nodes[1].memory_bytes == 2000000);
  CHECK(topology.node_numbered(1) == 1);
  CHECK(topology.node_numbered(-1) == 0);
  CHECK(topology.node_numbered(7) == 0);
  const std::vector<PciDevice> expected = {
      {"0000:00:01.0", "8086:a70d", "bridge", "", 63.0, 1},
      {"0000:01:00.0", "NVIDIA Corporation GB202", "gpu", "0000:00:01.0", 63.0, 1},
      {"0000:02:00.0", "Some SSD 2TB", "nvme", "0000:00:01.0", 15.75, 1},
      {"0000:00:1f.0", "1a03:2000", "display", "", 0, 1}};
  REQUIRE(machine.pci.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(machine.pci[i] == expected[i]);
  }
  CHECK(machine.gpus.empty());
}

TEST_CASE("a link is as fast as its slower end, over the lanes in use") {
  const test::TemporaryFolder folder;
  const auto real = folder.path() / "real", links = folder.path() / "devices";
  std::filesystem::create_directories(links);
  const auto add = [&](const std::string& path, const char* speed, const char* lanes) {
    make_device(real / path, speed, lanes);
    const std::string address = std::filesystem::path(path).filename();
    std::filesystem::create_directory_symlink(real / path, links / address);
    return address;
  };
  add("00:01.0", "32.0 GT/s PCIe", "16");
  add("00:02.0", "16.0 GT/s PCIe", "4");
  CHECK(pci_link_gb_s(links, add("00:01.0/gpu", "32.0 GT/s PCIe", "16")) ==
        doctest::Approx(63.0).epsilon(0.001));
  CHECK(pci_link_gb_s(links, add("00:01.0/half", "32.0 GT/s PCIe", "8")) ==
        doctest::Approx(31.5).epsilon(0.001));
  CHECK(pci_link_gb_s(links, add("00:02.0/disk", "32.0 GT/s PCIe", "4")) ==
        doctest::Approx(7.88).epsilon(0.001));
  CHECK(pci_link_gb_s(links, add("00:02.0/old", "5.0 GT/s PCIe", "4")) == doctest::Approx(2.0));
  CHECK(pci_link_gb_s(links, add("00:02.0/new", "64.0 GT/s PCIe", "1")) ==
        doctest::Approx(16.0 / 8 * 128 / 130));
  CHECK(pci_link_gb_s(links, add("00:01.0/virtual", "", "")) == 0);
  CHECK(pci_link_gb_s(links, add("00:01.0/odd", "Unknown", "16")) == 0);
  CHECK(pci_link_gb_s(links, "0000:77:00.0") == 0);
}

TEST_CASE("devices are named as the system's list has them") {
  const test::TemporaryFolder folder;
  const auto list = folder.path() / "pci.ids";
  std::ofstream(list) << "# list\n\n1002  AMD\n\t2b85  wrong maker\n10de  NVIDIA Corporation\n"
                         "\t2b84  other\n\t\t2b85 0001  a card\n\t2b85  GB202 [RTX 5090]\n"
                         "8086  Intel\n\tffff  wrong maker\n";
  CHECK(pci_name(list, "10de:2b85") == "NVIDIA Corporation GB202 [RTX 5090]");
  CHECK(pci_name(list, "10de:ffff") == "NVIDIA Corporation 10de:ffff");
  CHECK(pci_name(list, "beef:2b85") == "beef:2b85");
  CHECK(pci_name(list, "Some SSD 2TB") == "Some SSD 2TB");
  CHECK(pci_name(folder.path() / "none", "10de:2b85") == "10de:2b85");
}

TEST_CASE("this machine has a name, memory and the kernels' features") {
  const Machine machine = describe_machine();
  CHECK_FALSE(machine.name.empty());
  CHECK_FALSE(machine.cpu.name.empty());
  CHECK(machine.memory_bytes() > int64_t{1} << 28);
  CHECK(machine.cpu.cores == Topology::of_this_machine().cores());
  const Disk disk = describe_disk(".", Topology::of_this_machine());
  CHECK_FALSE(disk.name.empty());
  CHECK(disk.capacity_bytes > 0);
  CHECK_THROWS_AS(describe_disk("/no/such/folder", Topology::of_this_machine()), Error);
}
