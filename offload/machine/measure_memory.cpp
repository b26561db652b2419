#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"
#include "offload/machine/measure.h"
#include "offload/machine/timing.h"

namespace hearth {
namespace {

constexpr int64_t kReadPieceBytes = 8 << 20;
constexpr int64_t kCopyPieceBytes = 4 << 20;

// Cuts `bytes` into pieces that the threads of `node` take as they come; returns `bytes`.
template <typename F>
double on_node(const Workers& workers, int node, int64_t bytes, int64_t piece_bytes, F&& body) {
  std::atomic<int64_t> next = 0;
  workers.on_each_thread([&](int thread) {
    if (workers.node_of(thread) != node) return;
    for (int64_t at; (at = next.fetch_add(piece_bytes)) < bytes;) {
      body(at, std::min(piece_bytes, bytes - at));
    }
  });
  return static_cast<double>(bytes);
}

// By the cores of one node, from the memory of one.
double read_gb_s(const Kernels& kernels, const Workers& workers, std::span<unsigned char> memory,
                 int node, double seconds) {
  std::atomic<uint64_t> sum = 0;  // used, so that no read can be left out
  return 1e-9 * median_rate(seconds, [&] {
           return on_node(workers, node, std::ssize(memory), kReadPieceBytes,
                          [&](int64_t at, int64_t bytes) {
                            sum += kernels.read_bytes(memory.data() + at, bytes);
                          });
         });
}

// From the first half of a node's memory to the second, by its own cores.
double copy_gb_s(const Workers& workers, std::span<unsigned char> memory, int node,
                 double seconds) {
  const int64_t half = std::ssize(memory) / 2;
  return 1e-9 * median_rate(seconds, [&] {
           const double copied =
               on_node(workers, node, half, kCopyPieceBytes, [&](int64_t at, int64_t bytes) {
                 std::memcpy(memory.data() + half + at, memory.data() + at,
                             static_cast<size_t>(bytes));
               });
           return 2 * copied;  // read and written
         });
}

}  // namespace

int64_t read_part(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory,
                  int64_t begin, int64_t bytes, int64_t piece_bytes) {
  const int64_t pieces = (bytes + piece_bytes - 1) / piece_bytes;
  std::atomic<uint64_t> sum = 0;
  workers.for_range(pieces * memory.nodes(), 1, [&](int64_t i, int64_t, int) {
    const unsigned char* part = memory.of_node(static_cast<int>(i / pieces)).data() + begin;
    const int64_t at = i % pieces * piece_bytes;
    sum += kernels.read_bytes(part + at, std::min(piece_bytes, bytes - at));
  });
  return bytes * memory.nodes();
}

double measure_loop_us(const Workers& workers) {
  constexpr size_t kLoops = 2000;
  constexpr double kSecondsMax = 0.3;
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < kLoops && spent < kSecondsMax; spent += seconds.back()) {
    seconds.push_back(
        seconds_of([&] { workers.for_range(workers.threads(), 1, [](int64_t, int64_t, int) {}); }));
  }
  return 1e6 * median(std::move(seconds));
}

void measure_memory(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory,
                    const MeasureTimes& times, Machine& machine) {
  const int nodes = memory.nodes();
  HEARTH_CHECK(std::ssize(machine.nodes) == nodes);
  const int64_t node_bytes = std::ssize(memory.of_node(0));
  machine.read_gb_s = 1e-9 * median_rate(times.read, [&] {
                        return static_cast<double>(
                            read_part(kernels, workers, memory, 0, node_bytes, kReadPieceBytes));
                      });
  if (nodes == 1) {
    MemoryNode& node = machine.nodes.front();
    node.copy_gb_s = copy_gb_s(workers, memory.of_node(0), 0, times.copy);
    node.read_gb_s = machine.read_gb_s;
    node.read_from_gb_s = {machine.read_gb_s};
    return;
  }
  for (int of = 0; of < nodes; ++of) {
    MemoryNode& node = machine.nodes[static_cast<size_t>(of)];
    node.copy_gb_s = copy_gb_s(workers, memory.of_node(of), of, times.copy);
    node.read_from_gb_s.clear();
    for (int by = 0; by < nodes; ++by) {
      node.read_from_gb_s.push_back(
          read_gb_s(kernels, workers, memory.of_node(of), by, times.read / nodes));
    }
    node.read_gb_s = node.read_from_gb_s[static_cast<size_t>(of)];
  }
}

}  // namespace hearth
