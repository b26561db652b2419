// The memory this process may take.
#pragma once

#include <cstdint>

namespace hearth {

// Bytes of memory the process can still take without swapping: what the kernel calls available, or
// what its control groups (v1 or v2) leave, whichever is less.
int64_t available_memory_bytes();

// Whether the system can page memory out at all.
bool has_swap();

// The process's resident memory at its highest.
int64_t peak_resident_bytes();

}  // namespace hearth
