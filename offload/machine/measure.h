// How fast the cores and the memory of this machine are: the rates of a profile.
//
// Bandwidths are medians over passes in which the whole team works, its threads pinned; rates of
// arithmetic are the best of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/workers.h"
#include "cpu_kernels/kernels.h"
#include "offload/machine/machine.h"
#include "offload/machine/probe_memory.h"

namespace hearth {

// Seconds each figure may take; at least three passes are made in any case.
struct MeasureTimes {
  double read = 0.3;
  double copy = 0.15;
  double stream = 0.1;      // a format
  double matmul = 0.015;    // a format and number of tokens
  double registers = 0.05;  // a table of kernels
  double attention = 0.05;  // a table of kernels
};

// Microseconds to start all threads on a loop and to wait for the last.
double measure_loop_us(const Workers& workers);

// Sets read_gb_s and the rates of the nodes, which are as many as the team is spread over.
void measure_memory(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory,
                    const MeasureTimes& times, Machine& machine);

// The reads that bandwidths are of: `bytes` of every node's share from `begin` on, in pieces, by
// all threads, each its own node's first. Returns the bytes of all nodes.
int64_t read_part(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory,
                  int64_t begin, int64_t bytes, int64_t piece_bytes);

// The formats a profile tells about, those of models in use.
std::span<const TensorType> measured_formats();

// What the team does with one table. `formats` may be empty: then only what needs none is measured.
// Those that the engine interleaves for this table have rates of both ways.
// `on_format` is called before each.
IsaRates measure_isa(const Kernels& kernels, const Workers& workers, const ProbeMemory& memory,
                     std::span<const TensorType> formats, const MeasureTimes& times,
                     const std::function<void()>& on_format = {});

}  // namespace hearth
