// What this machine can do at best, measured in this process: the figures that stages are compared
// with.
#pragma once

#include "engine/engine.h"

namespace hearth {

// Bytes a second all workers together read from memory (not from caches), in GB/s.
double measure_read_gb_s(const Engine& engine);

// Multiply-adds (counted twice) a second of the best matrix kernel on cached operands, in GFLOP/s.
double measure_matmul_gflop_s(const Engine& engine);

}  // namespace hearth
