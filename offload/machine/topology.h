// The cores and NUMA nodes this process may use, and the ways to bind threads and memory to them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace hearth {

class Topology {
 public:
  // This machine, less what the process was kept from when it first asked.
  static const Topology& of_this_machine();
  // A made-up machine as hwloc writes them, "numa:2 core:4 pu:2"; nothing can be bound there.
  // Throws Error.
  explicit Topology(const std::string& description);
  ~Topology();
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  int cores() const;  // physical ones, at least 1
  // NUMA nodes that have cores, at least 1; 1 where cores are not spread over them evenly.
  int nodes() const;

  // Binds the calling thread, number `thread` of a team of `threads`, to a core of its own where
  // the team has as many threads as there are cores: the scheduler then can't put two on one. A
  // smaller team stays free, so that two programs don't meet on the same cores.
  void bind_thread(int thread, int threads) const;
  // Pages of this memory will come from `node` when they are first touched.
  void bind_memory(void* begin, size_t bytes, int node) const;

 private:
  Topology();
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace hearth
