#include "offload/machine/machine.h"

namespace hearth {

int64_t Machine::memory_bytes() const {
  int64_t total = 0;
  for (const MemoryNode& node : nodes) total += node.memory_bytes;
  return total;
}

}  // namespace hearth
