// The tables, a source each.
#pragma once

#include <string>
#include <vector>

#include "gpu_kernels/bench/bench.h"

namespace hearth::bench {

Table peaks(Bench& bench);         // copies, launches, round trips
Table matmul(Bench& bench);        // products of few tokens
Table experts(Bench& bench);       // products with the experts that tokens picked
Table attention(Bench& bench);     // the caches at a long context
Table steps(Bench& bench);         // all the small kernels of a decode step
Table tensor_cores(Bench& bench);  // products of many tokens

struct NamedTable {
  const char* name;
  Table (*measure)(Bench& bench);
};
inline constexpr NamedTable kTables[] = {{"peaks", peaks},     {"matmul", matmul},
                                         {"experts", experts}, {"attention", attention},
                                         {"steps", steps},     {"tensor_cores", tensor_cores}};

}  // namespace hearth::bench
