// A device in host memory for tests: it has a limit, its kernels run on emulated threads, and
// nothing in a stream happens before somebody waits for it. Then work of all streams runs in an
// order drawn from the seed, which only streams and events restrict: where a wait is missing, some
// seed gives a wrong result. Memory starts as NaN and ends where unreadable memory begins; a copy
// that leaves its buffer is a failed check. Copies of memory that is not pinned count, and are as
// late as any.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

#include "device/device.h"

namespace hearth {

struct FakeDeviceOptions {
  int64_t memory_bytes = int64_t{1} << 30;
  uint64_t seed = 1;
  // What pin(), and all pinned buffers together, refuse to exceed.
  int64_t pin_bytes = std::numeric_limits<int64_t>::max();
  int64_t pinned_buffer_bytes = std::numeric_limits<int64_t>::max();
  bool has_pages = true;  // whether its ranges take memory page by page
};

struct FakeDeviceCounts {
  int64_t pinned_bytes;         // now, buffers and ranges
  int64_t unpinned_copies;      // so far, whose memory of the host was not pinned
  int64_t pinned_buffer_bytes;  // now, buffers alone
  int64_t most_memory_bytes;    // of the device that were taken at once
};

std::unique_ptr<Device> make_fake_device(const FakeDeviceOptions& options = {});
FakeDeviceCounts counts(const Device& fake);

}  // namespace hearth
