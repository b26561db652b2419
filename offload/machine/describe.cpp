#include "offload/machine/describe.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>

#include "base/error.h"
#include "offload/machine/pci_names.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPciDevices = "/sys/bus/pci/devices";
constexpr const char* kPciNames[] = {"/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids"};

// Those that tell which kernels run, of the kernel's names.
constexpr std::array kFeatures = {"avx2",        "fma",        "f16c",        "avx_vnni",
                                  "avx512f",     "avx512bw",   "avx512dq",    "avx512vl",
                                  "avx512_vnni", "avx512vbmi", "avx512_bf16", "avx512_fp16",
                                  "amx_tile",    "amx_bf16",   "amx_int8",    "hypervisor"};

// The first line, without spaces around it; empty where the file can't be read.
std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  const size_t begin = line.find_first_not_of(" \t");
  const size_t end = line.find_last_not_of(" \t\r");
  return begin == std::string::npos ? "" : line.substr(begin, end + 1 - begin);
}

// A key of /proc/cpuinfo, as of the first processor.
std::string cpuinfo(const std::string& wanted) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    const size_t end = line.find_last_not_of(" \t", colon == 0 ? 0 : colon - 1);
    if (colon == std::string::npos || line.substr(0, end + 1) != wanted) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::vector<std::string> cpu_features() {
  std::istringstream flags(cpuinfo("flags"));
  std::vector<std::string> found, features;
  for (std::string flag; flags >> flag;) found.push_back(flag);
  for (const char* feature : kFeatures) {
    if (std::ranges::find(found, feature) != found.end()) features.emplace_back(feature);
  }
  return features;
}

// GB/s a way of one lane, by the transfers a second that the kernel names; 0 for unknown ones.
double lane_gb_s(const std::string& speed) {
  double gt_s = 0;
  std::istringstream(speed) >> gt_s;
  if (gt_s <= 0 || gt_s > 1000) return 0;
  if (gt_s <= 5) return gt_s / 8 * 8 / 10;  // 8 bits in 10
  if (gt_s <= 32) return gt_s / 8 * 128 / 130;
  return gt_s / 8 * 242 / 256;  // packets of fixed size
}

std::string default_name(const Machine& machine) {
  const double gib = static_cast<double>(machine.memory_bytes()) / (int64_t{1} << 30);
  std::string name =
      fmt::format("{}, {} cores, {:.0f} GiB", machine.cpu.name, machine.cpu.cores, gib);
  for (const PciDevice& device : machine.pci) {
    if (device.kind == "gpu") name += ", " + device.name;
  }
  const auto& features = machine.cpu.features;
  const bool is_virtual = std::ranges::find(features, "hypervisor") != features.end();
  return is_virtual ? name + ", virtual machine" : name;
}

// The one disk that an encrypted or logical one lies on; itself where that is not one.
fs::path disk_below(fs::path block) {
  for (int level = 0; level < 8; ++level) {
    std::error_code error;
    std::vector<fs::path> below;
    for (const auto& entry : fs::directory_iterator(block / "slaves", error)) {
      below.push_back(entry.path());
    }
    if (below.size() != 1) break;
    const fs::path next = fs::canonical(below.front(), error);
    if (error) break;
    block = fs::exists(next / "partition", error) ? next.parent_path() : next;
  }
  return block;
}

// The kernel's folder of the disk with this device number; empty where it has none.
fs::path block_folder(dev_t device) {
  std::error_code error;
  const fs::path link = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
  fs::path folder = fs::canonical(link, error);
  if (error) return {};
  if (fs::exists(folder / "partition", error)) folder = folder.parent_path();
  return disk_below(folder);
}

// The kernel's number of the node that a device hangs on, asking those above it too; -1: any.
int node_number(fs::path folder) {
  for (; folder.has_relative_path(); folder = folder.parent_path()) {
    int number = -1;
    if (std::ifstream(folder / "numa_node") >> number) return number;
  }
  return -1;
}

}  // namespace

double pci_link_gb_s(const fs::path& devices, const std::string& address) {
  std::error_code error;
  const fs::path device = fs::canonical(devices / address, error);
  if (error) return 0;
  double lanes = 0;
  std::ifstream(device / "current_link_width") >> lanes;
  if (!(lanes >= 1 && lanes <= 64)) return 0;
  const double end = lane_gb_s(first_line(device / "max_link_speed"));
  const double other_end = lane_gb_s(first_line(device.parent_path() / "max_link_speed"));
  return lanes * (other_end > 0 ? std::min(end, other_end) : end);
}

Machine describe_machine() {
  Machine machine = Topology(Topology::Devices::kPci).describe();
  if (machine.cpu.name.empty()) machine.cpu.name = cpuinfo("model name");
  if (machine.cpu.name.empty()) machine.cpu.name = "unknown CPU";
  machine.cpu.features = cpu_features();
  for (PciDevice& device : machine.pci) {
    const double gb_s = pci_link_gb_s(kPciDevices, device.address);
    if (gb_s > 0) device.link_gb_s = gb_s;
    for (const char* list : kPciNames) device.name = pci_name(list, device.name);
  }
  machine.name = default_name(machine);
  return machine;
}

Disk describe_disk(const fs::path& folder, const Topology& topology) {
  struct stat status {};
  struct statvfs space {};
  if (::stat(folder.c_str(), &status) != 0 || ::statvfs(folder.c_str(), &space) != 0) {
    throw Error("cannot be read: " + std::generic_category().message(errno), folder.string(),
                "Name a folder on the disk to measure");
  }
  Disk disk;
  disk.name = "file system without a disk of its own";
  disk.capacity_bytes = static_cast<int64_t>(space.f_blocks * space.f_frsize);
  const fs::path block = block_folder(status.st_dev);
  if (block.empty()) return disk;
  const std::string model = first_line(block / "device/model");
  disk.name = model.empty() ? block.filename().string() : model;
  disk.node = topology.node_numbered(node_number(block));
  int64_t sectors = 0;
  constexpr int64_t kSectorBytes = 512;
  if (std::ifstream(block / "size") >> sectors && sectors > 0) {
    disk.capacity_bytes = sectors * kSectorBytes;
  }
  return disk;
}

}  // namespace hearth
