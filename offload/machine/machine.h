// What this machine has: cores the process may use and memory it may take.
#pragma once

#include <cstdint>

namespace hearth {

// Physical cores this process is allowed to run on, at least 1.
int physical_cores();

// Binds the calling thread, number `thread` of a team of `threads`, to a core of its own where the
// team has as many threads as this process has cores: the scheduler then can't put two on one. A
// smaller team stays free, so that two programs don't meet on the same cores.
void bind_to_core(int thread, int threads);

// Bytes of memory the process can still take without swapping: what the kernel calls available, or
// what its control groups (v1 or v2) leave, whichever is less.
int64_t available_memory_bytes();

// The process's resident memory at its highest.
int64_t peak_resident_bytes();

}  // namespace hearth
