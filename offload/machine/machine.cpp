#include "offload/machine/machine.h"

#include "format/interleave.h"

namespace hearth {
namespace {

const std::string kInterleavedSuffix = " interleaved";

}  // namespace

std::string format_name(TensorType type, bool interleaved) {
  return type_info(type).name + (interleaved ? kInterleavedSuffix : "");
}

bool is_format_name(const std::string& name) {
  if (name == type_info(TensorType::kF8_E4M3).name) return true;
  const bool interleaved = name.ends_with(kInterleavedSuffix);
  const size_t length = name.size() - (interleaved ? kInterleavedSuffix.size() : 0);
  const TypeInfo* type = find_type_by_name(name.substr(0, length).c_str());
  return type != nullptr && (!interleaved || can_interleave(type->type));
}

int64_t Machine::memory_bytes() const {
  int64_t bytes = 0;
  for (const MemoryNode& node : nodes) bytes += node.memory_bytes;
  return bytes;
}

}  // namespace hearth
