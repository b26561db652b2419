#include "model/device/slab.h"

#include "base/error.h"

namespace hearth {

DeviceBuffer allocate_for(Device& device, const char* what, int64_t bytes) {
  try {
    return device.allocate(static_cast<size_t>(bytes));
  } catch (const Error& error) {
    throw Error(error.what(), what, "");
  }
}

PinnedBuffer allocate_pinned_for(Device& device, const char* what, int64_t bytes) {
  try {
    return device.allocate_pinned(static_cast<size_t>(bytes));
  } catch (const Error& error) {
    throw Error(error.what(), what, "");
  }
}

}  // namespace hearth
