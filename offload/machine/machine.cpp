#include "offload/machine/machine.h"

namespace hearth {

int64_t Machine::memory_bytes() const {
  int64_t bytes = 0;
  for (const MemoryNode& node : nodes) bytes += node.memory_bytes;
  return bytes;
}

}  // namespace hearth
