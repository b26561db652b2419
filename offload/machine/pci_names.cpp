#include "offload/machine/pci_names.h"

#include <fmt/format.h>

#include <fstream>

namespace hearth {

// A line "10de  NAME" for a maker, below it "\t2b85  NAME" for each of its devices; deeper ones are
// cards with the device on them.
std::string pci_name(const std::filesystem::path& list, const std::string& numbers) {
  constexpr size_t kNumberEnd = 4, kNameBegin = 6;
  if (numbers.size() != 2 * kNumberEnd + 1) return numbers;
  const std::string maker = fmt::format("{}  ", numbers.substr(0, kNumberEnd));
  const std::string device = fmt::format("\t{}  ", numbers.substr(kNumberEnd + 1));
  std::ifstream in(list);
  std::string maker_name;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("#") || line.empty()) continue;
    if (line[0] != '\t') {
      if (!maker_name.empty()) break;
      if (line.starts_with(maker)) maker_name = line.substr(kNameBegin);
    } else if (!maker_name.empty() && line.starts_with(device)) {
      return maker_name + " " + line.substr(1 + kNameBegin);
    }
  }
  return maker_name.empty() ? numbers : maker_name + " " + numbers;
}

}  // namespace hearth
